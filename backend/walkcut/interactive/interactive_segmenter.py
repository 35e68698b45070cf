"""Interactive segmentation: text commands and prompts of an annotator in, suggestions out."""

from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.inference.predictor import Predictor, for_each_image, isolate_failure, regions_at_granularity
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

        Invalid commands and impossible edits are reported in the status field. Raises `WalkcutError` if none of the
        images concerned can be read and segmented.
        """
        answer = partial(self._answer_control, task, project, context)
        images = for_each_image(project.controls, answer)
        results = images.require_any()
        images.report(task)
        return Prediction([item for _, items in results for item in items], "suggestions")

    def _answer_control(self, task: Task, project: Project, context: object, control: BrushControl) -> Results:
        if prompts := read_prompts(context, control):
            return self._handle_prompts(task, project, control, prompts)
        if commands := text_commands(context, control):
            return self._handle_text(task, project, control, commands)
        return []

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
        before = screen.regions
        state = _edit_state(tree, granularity, before, task, project, control)
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
        state = _edit_state(tree, granularity, before, task, project, control)
        failure = ""
        for edit in self._edits(task, control, prompts):
            try:
                state = edit(state)
            except GranularityError as error:
                failure = _sentence(error)
        verb = "Re-segment" if isinstance(prompts[-1], Box) else prompts[-1].label
        message = failure or describe_edits(verb, before, state.regions, control)
        self._sessions.save(task, control, granularity, prompts, screen, state.regions)
        changes = [] if state.regions is before else _diff(before, screen.uncertain, state, control)
        return [*changes, *status_item([f"{STATUS_MARK}{message}"], control)]

    def _edits(
        self, task: Task, control: BrushControl, prompts: Sequence[Prompt]
    ) -> Iterator[Callable[[edits.EditState], edits.EditState]]:
        """Yield the edits of the prompts in order; a label of the control is given to the regions that they make."""
        for _, group in groupby(prompts, key=lambda prompt: (type(prompt), prompt.label)):
            alike = list(group)
            points = [prompt for prompt in alike if isinstance(prompt, Point)]
            label = alike[0].label if alike[0].label in control.labels else ""
            boxes = [prompt for prompt in alike if isinstance(prompt, Box)]
            box_label = label if control.is_class(label) else ""
            yield from (partial(self._resegment_box, task, control, box, box_label) for box in boxes)
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
                    yield partial(edits.select, points=points, label=label)

    def _resegment_box(
        self, task: Task, control: BrushControl, box: Box, label: str, state: edits.EditState
    ) -> edits.EditState:
        """Segment the inside of a box again, by the tree of that crop at full resolution."""
        crop = box.pixels(state.tree.size)
        crop_tree = self._predictor.tree_for_interactive(task.image_reference(control), task.id, crop)
        return edits.resegment_box(state, crop, crop_tree, f"box {crop}", label)


def _edit_state(
    tree: CutTree, granularity: Granularity, regions: edits.Regions, task: Task, project: Project, control: BrushControl
) -> edits.EditState:
    make_id = partial(region_id, task, control)
    return edits.EditState(tree, granularity, regions, project.options.min_area, control.placeholders, make_id)


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
