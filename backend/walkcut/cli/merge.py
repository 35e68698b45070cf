"""`walkcut merge`."""

import json
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from jaxtyping import Integer

from walkcut.cli.options import OUTPUT_FILE, PATH, GranularityType
from walkcut.errors import SettingsError, TreeFileError
from walkcut.evaluation.ground_truth import LabelImage
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.images.encode import encode_png
from walkcut.labelstudio.annotations import annotated_image_names, read_regions, region_numbers, unread_regions
from walkcut.labelstudio.json_export import items_of_page, pages, region_labels, select_annotation
from walkcut.labelstudio.json_input import check_depth
from walkcut.labelstudio.predictions import Region
from walkcut.learning.oracle_merge import oracle_merge, oracle_merge_tree, tree_segments
from walkcut.storage import atomic_file

_NamedRegion = tuple[Region, Sequence[str]]  # a region and all of its labels
_PNG = b"\x89PNG\r\n\x1a\n"


@click.command()
@click.argument("tree", type=PATH)
@click.option(
    "--annotation",
    required=True,
    type=PATH,
    help="Label PNG of regions, 0 for none, or JSON of Label Studio: an export (JSON or JSON-MIN), a file of a target "
    "storage, or an answer of its API.",
)
@click.option("--out", required=True, type=OUTPUT_FILE, help="16-bit PNG to write.")
@click.option(
    "--min-overlap",
    type=click.FloatRange(0, 1),
    default=0.0,
    help="Fraction of a segment that a region must cover to take it.",
)
@click.option("--keep-unannotated", is_flag=True, help="Leave segments without annotation at 0.")
@click.option(
    "--granularity",
    type=GranularityType(),
    help="Merge the segments of this granularity.  [the tree's leaves, best on BSDS500 by masks and by clicks]",
)
@click.option("--task", type=int, help="The id of the task, in an export of several.")
@click.option("--annotation-id", type=int, help="The id of the annotation.  [the task's newest that is not cancelled]")
@click.option("--image", help="The name (toName) of the image, in a task with several.")
@click.option("--page", type=click.IntRange(1), help="The page of TREE's image, in a task with several.")
def merge(
    tree: Path,
    annotation: Path,
    out: Path,
    min_overlap: float,
    keep_unannotated: bool,
    granularity: Granularity | None,
    task: int | None,
    annotation_id: int | None,
    image: str | None,
    page: int | None,
) -> None:
    """Merge the segments of TREE (from `walkcut segment --tree`) into the regions of an annotation.

    The annotation may be full masks or a few strokes and clicks. Each segment goes to the region with which it overlaps
    most; a segment that no region touches goes to the nearest region in the tree. Regions of an export are numbered
    from 1 and keep their labels; those that cannot be read are named on standard error and left out. The result is
    reported as a line of JSON on standard output.
    """
    try:
        cut = CutTree.from_bytes(_read_bytes(tree))
    except TreeFileError as error:
        raise TreeFileError(f"{tree}: {error}, by `walkcut segment --tree`") from error
    content = _read_bytes(annotation)
    regions: Sequence[_NamedRegion] = ()
    if content.startswith(_PNG):
        numbers: Integer[np.ndarray, "y x"] = LabelImage(annotation).read()
    else:
        result = select_annotation(_parse_json(content, annotation), task_id=task, annotation_id=annotation_id)
        regions = _named_regions(_one_page(result, page), image, cut.size)
        numbers = region_numbers([region for region, _ in regions], cut.size)
    segments, _ = tree_segments(cut, granularity)
    answer = annotated = oracle_merge(segments, numbers, min_overlap=min_overlap)
    if not keep_unannotated:
        answer = oracle_merge_tree(cut, numbers, granularity=granularity, min_overlap=min_overlap)
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(out) as write:
        write(encode_png(answer))
    line = {
        "out": str(out),
        "segments": len(np.unique(segments)),
        "annotated_segments": len(np.unique(segments[annotated > 0])),
        "regions": len(np.unique(answer[answer > 0])),
    }
    if regions:
        line["numbers"] = [
            {"number": number, "id": region.id, "labels": labels} for number, (region, labels) in enumerate(regions, 1)
        ]
    click.echo(json.dumps(line))


def _named_regions(result: Sequence[object], image: str | None, size: tuple[int, int]) -> list[_NamedRegion]:
    """Return the regions on an image, each once and with its labels; names those that cannot be read.

    Raises `SettingsError` if none can be read.
    """
    name = _one_image(result, image)
    regions, malformed = read_regions(result, name, size)
    errors = [*malformed, *unread_regions(result, name)]
    if errors and not regions:
        raise SettingsError(_none_read(errors))
    for error in errors:
        click.echo(f"left out: {error}", err=True)
    labels, named = region_labels(result), list[_NamedRegion]()
    for region in regions:
        # Label Studio repeats a region for each control that labels it.
        if not any(region.id == other.id and np.array_equal(region.mask, other.mask) for other, _ in named):
            named.append((region, labels.get(region.id, ())))
    return named


def _one_page(result: Sequence[object], page: int | None) -> Sequence[object]:
    """Return the items of the page. Raises `SettingsError` where there are several to choose from, or not this one."""
    annotated = pages(result)
    if annotated and page not in annotated and (page is not None or len(annotated) > 1):
        raise SettingsError(f"choose the --page of the tree's image among {', '.join(map(str, annotated))}")
    return result if page is None else items_of_page(result, page)


def _parse_json(content: bytes, path: Path) -> object:
    try:
        document = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"{path} is neither a PNG nor JSON ({error}): pass a label PNG, or a JSON export of Label Studio"
        ) from error
    check_depth(document)
    return document


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}; pass the path of a readable file") from error


def _one_image(result: Sequence[object], image: str | None) -> str:
    """Return the name of the annotated image. Raises `SettingsError` if there is none, or several to choose from."""
    names = annotated_image_names(result)
    if not names:
        if errors := unread_regions(result):
            raise SettingsError(_none_read(errors))
        raise SettingsError("the annotation holds no regions: draw brush strokes, shapes or key points with a label")
    if image not in names and (image is not None or len(names) > 1):
        raise SettingsError(f"choose the --image among {', '.join(names)}")
    return image or names[0]


def _none_read(errors: Sequence[Exception]) -> str:
    return f"no region can be read: {errors[0]}{f'; and {len(errors) - 1} more' * bool(errors[1:])}"
