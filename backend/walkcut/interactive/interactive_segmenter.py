"""Interactive segmentation: text commands and prompts of an annotator in, suggestions out."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from walkcut.errors import GranularityError
from walkcut.inference.predictor import Predictor, isolate_failure, regions_at_granularity
from walkcut.inference.project import Project
from walkcut.interactive import edits
from walkcut.interactive.commands import apply_command, latest_granularity
from walkcut.interactive.messages import describe_edits, describe_segmentation
from walkcut.interactive.session import SessionStore
from walkcut.labelstudio.config import BrushControl
from walkcut.labelstudio.predictions import Prediction, brush_region, deletion_markers, region_id, status_item
from walkcut.labelstudio.prompts import STATUS_MARK, Box, Point, Prompt, read_prompts, text_commands
from walkcut.labelstudio.tasks import Task

Results = list[dict[str, Any]]


class InteractiveSegmenter:
    """Answers interactive calls: text commands segment a whole image again, points and boxes edit single regions."""

    def __init__(self, predictor: Predictor, sessions: SessionStore) -> None:
        self._predictor, self._sessions = predictor, sessions

    def answer(self, task: Task, project: Project, context: object) -> Prediction:
        """Return suggestions for a task; none without commands or prompts, as in Label Studio's calls after a submit.

        Invalid commands and impossible edits are reported in the status field. Raises `WalkcutError` for an image that
        cannot be read or segmented.
        """
        results: Results = []
        for control in project.controls:
            if prompts := read_prompts(context, control):
                results += self._handle_prompts(task, project, control, prompts)
            elif commands := text_commands(context, control):
                results += self._handle_text(task, project, control, commands)
        return Prediction(results, "suggestions")

    def _handle_text(self, task: Task, project: Project, control: BrushControl, commands: Sequence[str]) -> Results:
        """Segment the whole image at the granularity typed, in place of all unmodified regions."""
        tree = self._predictor.tree_for_interactive(task.image_reference(control), task.id)
        typed = [] if control.status_field == "status" else commands  # a field that takes commands keeps them
        try:
            current = latest_granularity(commands[:-1], tree, project.options.granularity)
            granularity = apply_command(commands[-1], tree, current)
        except GranularityError as error:
            return status_item([*typed, f"{STATUS_MARK}{_sentence(error)}"], control)
        screen = self._sessions.screen(task, control, tree.size)
        before, make_id = screen.regions, partial(region_id, task, control)
        state = edits.EditState(tree, granularity, before, project.options.min_area, control.placeholders, make_id)
        segmented = regions_at_granularity(tree, granularity, project, control)
        state = edits.resegment_all(state, segmented)
        self._sessions.save(task, control, granularity, [], screen, state.regions)
        changes = _diff(before, screen.ids, state, control)
        markers, hidden = sum("dynamic" in item for item in changes), tree.segment_count(granularity) - len(segmented)
        message = describe_segmentation(state.regions, granularity, markers=markers, hidden=hidden)
        return [*changes, *status_item([*typed, f"{STATUS_MARK}{message}"], control)]

    def _handle_prompts(
        self, task: Task, project: Project, control: BrushControl, prompts: Sequence[Prompt]
    ) -> Results:
        """Apply the edits of all prompts to the regions on the screen; an edit that fails is skipped and reported."""
        tree = self._predictor.tree_for_interactive(task.image_reference(control), task.id)
        granularity = self._sessions.granularity(task, control, prompts) or latest_granularity(
            text_commands(task.draft, control), tree, project.options.granularity
        )
        screen = self._sessions.screen(task, control, tree.size, prompts)
        before = screen.regions
        make_id = partial(region_id, task, control)
        state = edits.EditState(tree, granularity, before, project.options.min_area, control.placeholders, make_id)
        failure = ""
        for edit in self._edits(task, control, prompts):
            try:
                state = edit(state)
            except GranularityError as error:
                failure = _sentence(error)
        message = failure or describe_edits(prompts[-1].label, before, state.regions, control)
        self._sessions.save(task, control, granularity, prompts, screen, state.regions)
        changes = [] if state.regions is before else _diff(before, screen.uncertain, state, control)
        return [*changes, *status_item([f"{STATUS_MARK}{message}"], control)]

    def _edits(
        self, task: Task, control: BrushControl, prompts: Sequence[Prompt]
    ) -> Iterator[Callable[[edits.EditState], edits.EditState]]:
        """Yield the edits of the prompts in order; points whose label names no edit select a region with that label."""
        for _, group in groupby(prompts, key=lambda prompt: (type(prompt), prompt.label)):
            alike = list(group)
            points = [prompt for prompt in alike if isinstance(prompt, Point)]
            yield from (partial(self._resegment_box, task, control, box) for box in alike if isinstance(box, Box))
            match points and points[0].label.lower():
                case []:
                    continue
                case "finer":
                    yield from (partial(edits.split_region, point=point) for point in points)
                case "coarser":
                    yield from (partial(edits.merge_with_parent, point=point) for point in points)
                case "merge":
                    yield partial(edits.merge_regions, points=points)
                case _:
                    label = points[0].label if points[0].label in control.labels else ""
                    yield partial(edits.select, points=points, label=label)

    def _resegment_box(self, task: Task, control: BrushControl, box: Box, state: edits.EditState) -> edits.EditState:
        """Segment the inside of a box again, by the tree of that crop at full resolution."""
        crop = box.pixels(state.tree.size)
        crop_tree = self._predictor.tree_for_interactive(task.image_reference(control), task.id, crop)
        return edits.resegment_box(state, crop, crop_tree, f"box {crop}")


def _diff(before: edits.Regions, ids: Collection[str], state: edits.EditState, control: BrushControl) -> Results:
    """Return the suggestions that turn a screen into the state.

    On the screen are the regions `before`, but other regions or none may have any of these `ids`.
    """
    changed = [region for name, region in state.regions.items() if name in ids or before.get(name) is not region]
    deleted = [name for name in dict.fromkeys([*before, *sorted(ids)]) if name not in state.regions]
    return [
        *(brush_region(region, control, region.id) for region in changed),
        *deletion_markers(deleted, state.tree.size, control),
    ]


def _sentence(error: GranularityError) -> str:
    return str(error)[:1].upper() + str(error)[1:]


def answer_all(
    interactive: InteractiveSegmenter, tasks: Sequence[Task], project: Project, context: object
) -> list[Prediction]:
    """Return suggestions for each task, none for one that fails: Label Studio shows annotators no errors."""
    empty = Prediction([], "")
    return [isolate_failure(task, partial(interactive.answer, task, project, context), default=empty) for task in tasks]
