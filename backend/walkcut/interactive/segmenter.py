"""An annotator at work: what was typed or pointed at in, suggestions out."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.inference.predictor import Predictor, isolate_failure, regions_at_granularity
from walkcut.inference.project import Project
from walkcut.interactive.commands import resolve_granularity_commands
from walkcut.interactive.edits import (
    EditState,
    Regions,
    merge_regions,
    merge_with_parent,
    resegment_all,
    resegment_box,
    select,
    split_region,
)
from walkcut.interactive.session import SessionStore, draft_regions, unmodified_region_ids
from walkcut.labelstudio import (
    STATUS_MARK,
    Box,
    BrushControl,
    Point,
    Prediction,
    Prompt,
    Task,
    brush_region,
    deletion_marker,
    read_prompts,
    region_id,
    status,
    text_commands,
)

Results = list[dict[str, Any]]


class InteractiveSegmenter:
    """Answers annotators: whole images by typed granularity, single regions by points and boxes."""

    def __init__(self, predictor: Predictor, sessions: SessionStore) -> None:
        self._predictor, self._sessions = predictor, sessions

    def answer(self, task: Task, project: Project, context: object) -> Prediction:
        """What an annotator asked for; nothing for calls that ask for nothing, as Label Studio makes after a submit.

        Raises `WalkcutError` for images that cannot be had; what cannot be understood or done is said in the status.
        """
        results: Results = []
        for control in project.controls:
            if prompts := read_prompts(context, control):
                results += self._handle_prompts(task, project, control, prompts)
            elif lines := text_commands(context, control):
                results += self._handle_text(task, project, control, lines)
        scores = [item["score"] for item in results if "score" in item]
        return Prediction(results, sum(scores) / max(1, len(scores)), "suggestions")

    def _handle_text(self, task: Task, project: Project, control: BrushControl, lines: Sequence[str]) -> Results:
        """The whole image at a typed granularity, in place of the draft's regions that nobody has touched."""
        tree = self._predictor.tree_for_interactive(task.reference(control), task.id)
        said = [] if control.status == "status" else lines
        try:
            granularity = resolve_granularity_commands(lines, tree, project.options.granularity)
        except GranularityError as error:
            return status([*said, f"{STATUS_MARK}{error}"], control)
        before = draft_regions(task, control, tree.size)
        found = regions_at_granularity(tree, granularity, project, control)
        state = resegment_all(
            self._state(task, project, control, tree, granularity, before),
            found,
            unmodified_region_ids(task, control),
            f"typed {len(lines)} {granularity}",
        )
        self._sessions.remember(task, control, granularity, [], before, state.regions)
        outcome = f"{STATUS_MARK}{_described(granularity, tree, len(found))}"
        return [*_diff(before, state, control), *status([*said, outcome], control)]

    def _handle_prompts(
        self, task: Task, project: Project, control: BrushControl, prompts: Sequence[Prompt]
    ) -> Results:
        """The regions that points and boxes change, under the names that they have on the screen."""
        tree = self._predictor.tree_for_interactive(task.reference(control), task.id)
        granularity = self._granularity(task, project, control, tree)
        version = self._predictor.version(project, project.options.granularity)
        before = self._sessions.regions(task, control, tree.size, prompts, version)
        state = self._state(task, project, control, tree, granularity, before)
        verb = prompts[-1].label or "Select"
        said = f"{verb} at {granularity}"
        for step in self._edits(task, control, prompts):
            try:
                state = step(state)
            except GranularityError as error:
                said = f"{verb}: {error}"
        self._sessions.remember(task, control, granularity, prompts, before, state.regions)
        return [*_diff(before, state, control), *status([f"{STATUS_MARK}{said}"], control)]

    def _granularity(self, task: Task, project: Project, control: BrushControl, tree: CutTree) -> Granularity:
        """What the annotator typed last, as far as it is remembered or drafted; else the project's."""
        if remembered := self._sessions.granularity(task, control):
            return remembered
        lines = text_commands(task.drafts[-1], control) if task.drafts else []
        for end in range(len(lines), 0, -1):
            try:
                return resolve_granularity_commands(lines[:end], tree, project.options.granularity)
            except GranularityError:
                continue
        return project.options.granularity

    def _state(
        self,
        task: Task,
        project: Project,
        control: BrushControl,
        tree: CutTree,
        granularity: Granularity,
        shown: Regions,
    ) -> EditState:
        least = max(1.0, project.options.min_area * tree.leaves.size)
        return EditState(tree, granularity, shown, least, control.generic_labels, partial(region_id, task, control))

    def _edits(
        self, task: Task, control: BrushControl, prompts: Sequence[Prompt]
    ) -> Iterator[Callable[[EditState], EditState]]:
        """What the prompts ask for, in their order; a label that asks for nothing selects what then bears it."""
        for _, group in groupby(prompts, key=lambda prompt: (type(prompt), prompt.label)):
            same = list(group)
            points = [prompt for prompt in same if isinstance(prompt, Point)]
            yield from (partial(self._resegment_box, task, control, box) for box in same if isinstance(box, Box))
            match points and points[0].label.lower():
                case []:
                    continue
                case "finer":
                    yield from (partial(split_region, point=point) for point in points)
                case "coarser":
                    yield from (partial(merge_with_parent, point=point) for point in points)
                case "merge":
                    yield partial(merge_regions, points=points)
                case _:
                    label = points[0].label if points[0].label in control.labels else ""
                    yield partial(select, points=points, label=label)

    def _resegment_box(self, task: Task, control: BrushControl, box: Box, state: EditState) -> EditState:
        """What lies in a box segmented anew, with all the detail of an image of its own."""
        place = box.pixels(state.tree.size)
        inside = self._predictor.tree_for_interactive(task.reference(control), task.id, place)
        return resegment_box(state, place, inside, f"box {place}")


def _diff(before: Regions, state: EditState, control: BrushControl) -> Results:
    """What has to happen on the screen that showed the regions `before`."""
    changed = [region for name, region in state.regions.items() if before.get(name) is not region]
    gone = [region for name, region in before.items() if name not in state.regions]
    return [
        *(brush_region(region, control, region.id) for region in changed),
        *(deletion_marker(region, control) for region in gone),
    ]


def _described(granularity: Granularity, tree: CutTree, shown: int) -> str:
    """What a typed granularity came to, in words."""
    count = tree.segment_count(granularity)
    segments = f"{count} segment{'s' * (count != 1)}"
    wish = segments if str(count) == str(granularity) else f"{granularity}: {segments}"
    return wish if shown == count else f"{wish}, {shown} of them large enough to show"


def answer_all(
    interactive: InteractiveSegmenter, tasks: Sequence[Task], project: Project, context: object
) -> list[Prediction]:
    """What an annotator is shown for each task; nothing where it failed, since errors are not shown to annotators."""
    nothing = Prediction([], 0.0, "")
    return [
        isolate_failure(task, partial(interactive.answer, task, project, context), default=nothing) for task in tasks
    ]
