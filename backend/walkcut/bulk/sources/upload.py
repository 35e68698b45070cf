"""Upload of images into a Label Studio project, as tasks that a run into the project then predicts."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import PurePosixPath

from walkcut.bulk.items import Item, ItemFailure, Skipped, failure_of
from walkcut.bulk.jsonl import HashSet64
from walkcut.bulk.sources.uris import is_web, read_image
from walkcut.errors import ImageError
from walkcut.images import FetchPolicy, ImageLoader
from walkcut.images.formats import CONVERT, decoded_format
from walkcut.labelstudio.client import LabelStudioClient
from walkcut.labelstudio.task_data import with_value

SOURCE_FIELD = "walkcut_source"  # of task data: the reference that the image was uploaded from

_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "GIF": ".gif", "BMP": ".bmp", "WEBP": ".webp"}  # that Label Studio takes


def upload_images(
    images: Iterable[Item | ItemFailure | Skipped],
    client: LabelStudioClient,
    project_id: str,
    data_path: str,
    policy: FetchPolicy,
) -> Iterator[ItemFailure | Skipped]:
    """Make a task of each image that the project does not have; yield those that fail or are skipped.

    Images on the web become tasks with their address, others are uploaded. Raises `LabelStudioError` if Label Studio is
    unavailable.
    """
    known = HashSet64(str(task["data"].get(SOURCE_FIELD)) for task in client.all_tasks(project_id))
    loader = ImageLoader(policy, None)
    for image in images:
        if not isinstance(image, Item):
            yield image
        elif image.reference not in known:
            try:
                address = _upload(image, client, project_id, loader, policy)
            except ImageError as error:
                yield replace(failure_of(image, "upload", str(error)), key=f"upload/{image.key}")
                continue
            data = with_value(image.data, data_path, address)
            client.add_task(project_id, {**data, SOURCE_FIELD: image.reference})


def _upload(image: Item, client: LabelStudioClient, project_id: str, loader: ImageLoader, policy: FetchPolicy) -> str:
    """Return the address of an image in task data, after its upload if it is a file."""
    if is_web(image.reference):
        return image.reference
    data = read_image(image, loader, policy)
    image_format = decoded_format(data)
    if image_format not in _SUFFIXES:
        raise ImageError(f"Label Studio takes no upload of this format ({image_format or 'unknown'}): {CONVERT}")
    return client.upload_file(project_id, PurePosixPath(image.key).name + _SUFFIXES[image_format], data)
