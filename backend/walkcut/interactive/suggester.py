"""An annotator at work: what was typed or pointed at in, suggestions out."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.inference.predictor import Annotator, Project, find_regions, guarded
from walkcut.interactive.commands import follow_wishes
from walkcut.interactive.edits import Regions, Scene, coarser, finer, merged, recut, resegmented, selected
from walkcut.interactive.session import Screens, drafted, untouched
from walkcut.labelstudio import (
    STATUS_MARK,
    Box,
    BrushTarget,
    Point,
    Prediction,
    Prompt,
    Task,
    brush_region,
    prompts,
    region_id,
    status,
    typed_lines,
    withdrawn_region,
)

Results = list[dict[str, Any]]


class Suggester:
    """Answers annotators: whole pictures by typed granularity, single regions by points and boxes."""

    def __init__(self, annotator: Annotator, screens: Screens) -> None:
        self._annotator, self._screens = annotator, screens

    def suggest(self, task: Task, project: Project, context: object) -> Prediction:
        """What an annotator asked for; nothing for calls that ask for nothing, as Label Studio makes after a submit.

        Raises `WalkcutError` for pictures that cannot be had; what cannot be understood or done is said in the status.
        """
        results: Results = []
        for target in project.targets:
            if asked := prompts(context, target):
                results += self._pointed(task, project, target, asked)
            elif lines := typed_lines(context, target):
                results += self._typed(task, project, target, lines)
        scores = [item["score"] for item in results if "score" in item]
        return Prediction(results, sum(scores) / max(1, len(scores)), "suggestions")

    def _typed(self, task: Task, project: Project, target: BrushTarget, lines: Sequence[str]) -> Results:
        """The whole picture at a typed granularity, in place of the draft's regions that nobody has touched."""
        tree = self._annotator.recent_tree(task.reference(target), task.id)
        said = [] if target.status == "status" else lines
        try:
            granularity = follow_wishes(lines, tree, project.options.granularity)
        except GranularityError as error:
            return status([*said, f"{STATUS_MARK}{error}"], target)
        before = drafted(task, target, tree.size)
        found = find_regions(tree, granularity, project, target)
        scene = recut(
            self._scene(task, project, target, tree, granularity, before),
            found,
            untouched(task, target),
            f"typed {len(lines)} {granularity}",
        )
        self._screens.remember(task, target, granularity, [], before, scene.regions)
        outcome = f"{STATUS_MARK}{_described(granularity, tree, len(found))}"
        return [*_changes(before, scene, target), *status([*said, outcome], target)]

    def _pointed(self, task: Task, project: Project, target: BrushTarget, asked: Sequence[Prompt]) -> Results:
        """The regions that points and boxes change, under the names that they have on the screen."""
        tree = self._annotator.recent_tree(task.reference(target), task.id)
        granularity = self._granularity(task, project, target, tree)
        version = self._annotator.version(project, project.options.granularity)
        before = self._screens.regions(task, target, tree.size, asked, version)
        scene = self._scene(task, project, target, tree, granularity, before)
        verb = asked[-1].label or "Select"
        said = f"{verb} at {granularity}"
        for step in self._steps(task, target, asked):
            try:
                scene = step(scene)
            except GranularityError as error:
                said = f"{verb}: {error}"
        self._screens.remember(task, target, granularity, asked, before, scene.regions)
        return [*_changes(before, scene, target), *status([f"{STATUS_MARK}{said}"], target)]

    def _granularity(self, task: Task, project: Project, target: BrushTarget, tree: CutTree) -> Granularity:
        """What the annotator typed last, as far as it is remembered or drafted; else the project's."""
        if remembered := self._screens.granularity(task, target):
            return remembered
        lines = typed_lines(task.drafts[-1], target) if task.drafts else []
        for end in range(len(lines), 0, -1):
            try:
                return follow_wishes(lines[:end], tree, project.options.granularity)
            except GranularityError:
                continue
        return project.options.granularity

    def _scene(
        self, task: Task, project: Project, target: BrushTarget, tree: CutTree, granularity: Granularity, shown: Regions
    ) -> Scene:
        least = max(1.0, project.options.min_area * tree.leaves.size)
        return Scene(tree, granularity, shown, least, target.neutral, partial(region_id, task, target))

    def _steps(self, task: Task, target: BrushTarget, asked: Sequence[Prompt]) -> Iterator[Callable[[Scene], Scene]]:
        """What the prompts ask for, in their order; a label that asks for nothing selects what then bears it."""
        for _, group in groupby(asked, key=lambda prompt: (type(prompt), prompt.label)):
            same = list(group)
            points = [prompt for prompt in same if isinstance(prompt, Point)]
            yield from (partial(self._resegmented, task, target, box) for box in same if isinstance(box, Box))
            match points and points[0].label.lower():
                case []:
                    continue
                case "finer":
                    yield from (partial(finer, point=point) for point in points)
                case "coarser":
                    yield from (partial(coarser, point=point) for point in points)
                case "merge":
                    yield partial(merged, points=points)
                case _:
                    label = points[0].label if points[0].label in target.labels else ""
                    yield partial(selected, points=points, label=label)

    def _resegmented(self, task: Task, target: BrushTarget, box: Box, scene: Scene) -> Scene:
        """What lies in a box segmented anew, with all the detail of a picture of its own."""
        place = box.pixels(scene.tree.size)
        inside = self._annotator.recent_tree(task.reference(target), task.id, place)
        return resegmented(scene, place, inside, f"box {place}")


def _changes(before: Regions, scene: Scene, target: BrushTarget) -> Results:
    """What has to happen on the screen that showed the regions `before`."""
    changed = [region for name, region in scene.regions.items() if before.get(name) is not region]
    gone = [region for name, region in before.items() if name not in scene.regions]
    return [
        *(brush_region(region, target, region.id) for region in changed),
        *(withdrawn_region(region, target) for region in gone),
    ]


def _described(granularity: Granularity, tree: CutTree, shown: int) -> str:
    """What a typed granularity came to, in words."""
    count = tree.segments(granularity)
    segments = f"{count} segment{'s' * (count != 1)}"
    wish = segments if str(count) == str(granularity) else f"{granularity}: {segments}"
    return wish if shown == count else f"{wish}, {shown} of them large enough to show"


def suggest_all(suggester: Suggester, tasks: Sequence[Task], project: Project, context: object) -> list[Prediction]:
    """What an annotator is shown for each task; nothing where it failed, since errors are not shown to annotators."""
    nothing = Prediction([], 0.0, "")
    return [guarded(task, partial(suggester.suggest, task, project, context), otherwise=nothing) for task in tasks]
