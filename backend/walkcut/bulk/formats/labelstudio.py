"""Label Studio's import files."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import ClassVar

from walkcut.bulk.formats.records import Records, json_bytes
from walkcut.bulk.items import EncodedItem, ItemPrediction
from walkcut.labelstudio.config import ImageTag
from walkcut.labelstudio.predictions import Prediction, make_prediction, without_duplicates
from walkcut.storage import atomic_file

# Label Studio 1.23 accepts less than 250 MiB in a request, all of its files together (DATA_UPLOAD_MAX_MEMORY_SIZE; more
# ends in "You cannot access body after reading"), and a million tasks (TASKS_MAX_NUMBER); its API's reference promises
# 200 MB and 250,000 tasks. A request is read whole: 100 MB of tasks take 14 s and a gigabyte of its memory.
SHARD_BYTES = 100 * 10**6
SHARD_TASKS = 10_000

_SHARD = re.compile(r"tasks-(\d{5,})\.json")


def encode_predictions(image: ItemPrediction, image_tags: Sequence[ImageTag]) -> list[Prediction]:
    """Return the predictions of one image of a task. Raises `RequestError` as `TaskImage.reference`."""
    task_image = image.item.image(image_tags)
    return [make_prediction([(task_image, regional.regions)], regional.model_version) for regional in image.predictions]


@dataclass(frozen=True)
class LabelStudioFormat:
    """Tasks with predictions, for Label Studio's Import button or `POST /api/projects/{id}/import`.

    Each file is imported in a request of its own, so it has at most `shard_bytes`, except for a single larger task,
    and `shard_tasks`. Annotators start from the last prediction.
    """

    name: ClassVar[str] = "label-studio"
    image_tag: ImageTag
    shard_bytes: int = SHARD_BYTES
    shard_tasks: int = SHARD_TASKS

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """Return the task with its predictions as record.

        Raises `RequestError` if the item's data lack the image that the labelling config shows.
        """
        predictions = without_duplicates(encode_predictions(image, [self.image_tag]))
        documents = [prediction.as_json() for prediction in predictions]
        return EncodedItem({}, {"data": dict(image.item.data), "predictions": documents})

    def assemble(self, records: Records, output_dir: Path) -> None:
        """Write `tasks-00001.json` and so on, and delete files with higher numbers."""
        output_dir.mkdir(parents=True, exist_ok=True)
        last = 0
        for last, shard in groupby(self._shards(map(json_bytes, records)), key=itemgetter(0)):
            with atomic_file(output_dir / f"tasks-{last:05d}.json") as write:
                for index, (_, task) in enumerate(shard):
                    write((b",\n" if index else b"[\n") + task)
                write(b"\n]\n")
        for path in output_dir.glob("tasks-*.json"):
            match = _SHARD.fullmatch(path.name)
            if match and int(match[1]) > last:
                path.unlink()

    def _shards(self, tasks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
        """Yield each task with the number of its file."""
        frame, separator = len(b"[\n\n]\n"), len(b",\n")
        shard, count, size = 1, 0, frame
        for task in tasks:
            if count and (count == self.shard_tasks or size + separator + len(task) > self.shard_bytes):
                shard, count, size = shard + 1, 0, frame
            size += len(task) + (separator if count else 0)
            count += 1
            yield shard, task
