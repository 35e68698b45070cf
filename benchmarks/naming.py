"""How often learned names are right: `python -m benchmarks.naming [--root BSDS500]`.

Seven series of made images, and with the data set four of photographs: those with sky, those with animals, all, and
views, whose left halves are annotated and whose right halves are named. `bsds500_names.json` names the large segments
of 58 photographs of BSDS500 val, by eye: for each the index of one person's segmentation, and a point (x, y) in a
segment with its name, empty for a mixture. From the first tasks of a series in random order the names of the others are
learned as the backend does it.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64

from benchmarks.naming_scenes import SERIES, made_scene
from walkcut.evaluation.datasets import read_dataset
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.inference.predictor import regions_at_granularity
from walkcut.inference.project import Project, ProjectOptions
from walkcut.labelstudio.config import ControlTag, ImageTag
from walkcut.labelstudio.predictions import Region
from walkcut.labelstudio.tasks import Submission, Task, TaskImage
from walkcut.learning.feedback import AnnotatedImage, AnnotationFeedback, extract_feedback
from walkcut.learning.profile import fit_profile
from walkcut.segmentation.segmenter import Segmenter, load_segmenter

_NAMES = Path(__file__).with_name("bsds500_names.json")
_SCENES = 24  # of each made series
_MIN_AREA = 0.003  # of a segment whose name is judged, as a fraction of the image
_NEUTRAL = "Region"

Parts = Sequence[tuple[str, np.ndarray]]  # names and masks; an empty name for what nobody names


@dataclass(frozen=True)
class NamingTask:
    """An image's tree, the feedback of its annotation, and which of `names` is right for each pixel (-1: not known)."""

    tree: CutTree
    feedback: AnnotationFeedback
    names: tuple[str, ...]
    truth: Int64[np.ndarray, "y x"]


@dataclass(frozen=True)
class Count:
    """The segments that have a name, the names that were given, and those that were right."""

    named: int = 0
    given: int = 0
    right: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(self.named + other.named, self.given + other.given, self.right + other.right)


def make_task(segmenter: Segmenter, image: np.ndarray, parts: Parts, index: int, *, is_complete: bool) -> NamingTask:
    """Return the task of an image; the rest of the image has no name if its parts are complete, else it is unknown."""
    tree = segmenter.segment(image)
    names = tuple(sorted({name for name, _ in parts} | {""}))
    truth = np.full(tree.size, names.index("") if is_complete else -1)
    for name, mask in parts:
        truth[mask] = names.index(name)
    regions = [Region(mask, name, modified=True) for name, mask in parts if name]
    task = Task(index, {})
    annotated = AnnotatedImage(TaskImage(task, _image_tag(names)), tree, regions)
    submission = Submission(task, index, "", [])
    return NamingTask(
        tree, extract_feedback([annotated], submission, project_id="", segmenter_version=""), names, truth
    )


def made_series(segmenter: Segmenter, name: str, count: int = _SCENES) -> list[NamingTask]:
    """Return the first tasks of a made series."""
    scenes = (made_scene(name, number) for number in range(count))
    return [make_task(segmenter, *scene, index, is_complete=True) for index, scene in enumerate(scenes)]


def photographs(root: Path) -> Iterator[tuple[np.ndarray, Parts]]:
    """Yield the photographs that have names, with their parts."""
    named = json.loads(_NAMES.read_text())
    for example in read_dataset("bsds500", root, "val").examples:
        if note := named.get(example.name):
            image, truths = example.read()
            truth = truths[note["truth"]]
            yield image, [(name, truth == truth[y, x]) for x, y, name in note["segments"]]


def named_segments(learned_from: Sequence[NamingTask], tasks: Sequence[NamingTask]) -> Count:
    """Return how the segments of tasks are named after some others were annotated."""
    names = frozenset(name for task in learned_from for name in task.names if name)
    profile = fit_profile([task.feedback for task in learned_from], "", names)
    project = Project((_image_tag(names),), ProjectOptions(min_area=_MIN_AREA)).with_profile(profile)
    return sum((_judge(task, project) for task in tasks), Count())


def measure(tasks: Sequence[NamingTask], count: int, orders: int) -> Count:
    """Return how the others are named after `count` tasks, over some random orders of the tasks."""
    total = Count()
    for order in range(orders):
        shuffled = [tasks[index] for index in np.random.default_rng(order).permutation(len(tasks))]
        total += named_segments(shuffled[:count], shuffled[count:])
    return total


def _judge(task: NamingTask, project: Project) -> Count:
    """Count the names of segments: the right one is that of most of a segment's pixels, if half of them are known."""
    total, (image_tag,) = Count(), project.image_tags
    image = TaskImage(Task(0, {}), image_tag)
    for region in regions_at_granularity(task.tree, project.options.granularity, project, image):
        known = task.truth[region.mask]
        known = known[known >= 0]
        if 2 * known.size < region.mask.sum():
            continue
        name = task.names[int(np.bincount(known).argmax())]
        is_given = region.label != _NEUTRAL
        total += Count(bool(name), is_given, is_given and region.label == name)
    return total


def _image_tag(names: Sequence[str] | frozenset[str]) -> ImageTag:
    control = ControlTag("brush", "brush", (_NEUTRAL, *sorted(set(names) - {""})), "brush")
    return ImageTag("image", "$image", (control,), (_NEUTRAL,))


def _photograph_series(segmenter: Segmenter, root: Path) -> Iterator[tuple[str, list[NamingTask]]]:
    images = list(photographs(root))
    tasks = [make_task(segmenter, *image, index, is_complete=False) for index, image in enumerate(images)]
    yield "photographs with sky", [task for task in tasks if "sky" in task.names]
    yield "photographs with animals", [task for task in tasks if "animal" in task.names]
    yield "all photographs", tasks


def _views(segmenter: Segmenter, root: Path) -> tuple[list[NamingTask], list[NamingTask]]:
    """Return the left and the right halves of the photographs as tasks."""
    halves: tuple[list[NamingTask], list[NamingTask]] = [], []
    for index, (image, parts) in enumerate(photographs(root)):
        middle = image.shape[1] // 2
        for tasks, columns in zip(halves, (slice(middle), slice(middle, None)), strict=True):
            cropped = [(name, mask[:, columns]) for name, mask in parts if mask[:, columns].any()]
            crop = np.ascontiguousarray(image[:, columns])
            tasks.append(make_task(segmenter, crop, cropped, index, is_complete=False))
    return halves


def _measure_views(halves: tuple[list[NamingTask], list[NamingTask]], count: int, orders: int) -> Count:
    total = Count()
    for order in range(orders):
        chosen = np.random.default_rng(order).permutation(len(halves[0]))[:count]
        total += named_segments(*([half[index] for index in chosen] for half in halves))
    return total


def main() -> None:
    """Print for each series and number of annotated tasks the names given, those right, and the share named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=(4, 6, 8, 16))
    parser.add_argument("--orders", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    segmenter = load_segmenter("classical")
    for name in SERIES:
        tasks = made_series(segmenter, name)
        _print(name, {n: measure(tasks, n, options.orders) for n in options.counts})
    if options.root:
        for name, tasks in _photograph_series(segmenter, options.root):
            _print(name, {n: measure(tasks, n, options.orders) for n in options.counts})
        halves = _views(segmenter, options.root)
        _print("views", {n: _measure_views(halves, n, options.orders) for n in options.counts})


def _print(name: str, counts: Mapping[int, Count]) -> None:
    for number, count in counts.items():
        precision = f"{count.right / count.given:.3f}" if count.given else "    -"
        share = count.right / max(1, count.named)
        print(f"| {name} | {number} | {count.given} | {count.right} | {precision} | {share:.2f} |", flush=True)


if __name__ == "__main__":
    main()
