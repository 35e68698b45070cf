"""Interactive segmentation: text commands and prompts of an annotator in, suggestions out."""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.inference.predictor import Predictor, for_each_image, isolate_failure, regions_at_granularity
from walkcut.inference.project import Project
from walkcut.interactive import edits
from walkcut.interactive.commands import apply_command, latest_granularity
from walkcut.interactive.messages import describe_edits, describe_segmentation
from walkcut.interactive.session import SessionStore
from walkcut.labelstudio.config import ImageTag
from walkcut.labelstudio.predictions import (
    Prediction,
    Region,
    connected_regions,
    deletion_markers,
    region_id,
    region_items,
    status_item,
)
from walkcut.labelstudio.prompts import STATUS_MARK, Box, Point, Prompt, read_prompts, text_commands
from walkcut.labelstudio.tags import is_prompt
from walkcut.labelstudio.tasks import Task, TaskImage

Results = list[dict[str, Any]]

_AT_A_POINT = frozenset({"finer", "coarser", "merge"})


class InteractiveSegmenter:
    """Answers interactive calls: text commands segment a whole image again, points and boxes edit single regions."""

    def __init__(self, predictor: Predictor, sessions: SessionStore) -> None:
        self._predictor, self._sessions = predictor, sessions

    def answer(self, task: Task, project: Project, context: object) -> Prediction:
        """Return suggestions for a task; none without commands or prompts, as in Label Studio's calls after a submit.

        Invalid commands and impossible edits are reported in the status field. Raises `WalkcutError` if none of the
        images concerned can be read and segmented.
        """
        images = for_each_image(task.images(project.image_tags), partial(self._answer_image, project, context))
        results = images.require_any()
        images.report(task)
        return Prediction([item for _, items in results for item in items], "suggestions")

    def _answer_image(self, project: Project, context: object, image: TaskImage) -> Results:
        if prompts := read_prompts(context, image):
            return self._handle_prompts(project, image, prompts)
        if commands := text_commands(context, image):
            return self._handle_text(project, image, commands)
        return []

    def _handle_text(self, project: Project, image: TaskImage, commands: Sequence[str]) -> Results:
        """Segment the whole image at the granularity typed, in place of all unmodified regions."""
        tree = self._predictor.tree_for_interactive(image.reference, image.task.id)
        typed = [] if image.tag.status_field == "status" else commands  # a field that takes commands keeps them
        try:
            current = latest_granularity(commands[:-1], tree, project.options.granularity)
            granularity = apply_command(commands[-1], tree, current)
        except GranularityError as error:
            return status_item([*typed, f"{STATUS_MARK}{_sentence(error)}"], image)
        screen = self._sessions.screen(image, tree)
        before = screen.regions
        state = self._edit_state(tree, granularity, before, project, image)
        segmented = regions_at_granularity(tree, granularity, project, image)
        state = _connected(before, screen.ids, edits.resegment_all(state, segmented), image)
        self._sessions.save(image, granularity, [], screen, state.regions)
        changes = _diff(before, screen.ids, state, image)
        markers, hidden = sum("dynamic" in item for item in changes), tree.segment_count(granularity) - len(segmented)
        message = describe_segmentation(state.regions, granularity, markers=markers, hidden=hidden)
        return [*changes, *status_item([*typed, f"{STATUS_MARK}{message}"], image)]

    def _handle_prompts(self, project: Project, image: TaskImage, prompts: Sequence[Prompt]) -> Results:
        """Apply the edits of all prompts to the regions on the screen; an edit that fails is skipped and reported."""
        tree = self._predictor.tree_for_interactive(image.reference, image.task.id)
        granularity = self._sessions.granularity(image, prompts) or latest_granularity(
            text_commands(image.task.draft, image), tree, project.options.granularity
        )
        screen = self._sessions.screen(image, tree, prompts)
        before = screen.regions
        state = self._edit_state(tree, granularity, before, project, image)
        failure = ""
        for edit in self._edits(image, prompts):
            try:
                state = edit(state)
            except GranularityError as error:
                failure = _sentence(error)
        state = _connected(before, screen.uncertain, state, image)
        last = prompts[-1]
        message = failure or describe_edits(_verb(last, image.tag), before, state.regions, image.tag)
        self._sessions.save(image, granularity, prompts, screen, state.regions)
        changes = [] if state.regions is before else _diff(before, screen.uncertain, state, image)
        return [*changes, *status_item([f"{STATUS_MARK}{message}"], image)]

    def _edit_state(
        self, tree: CutTree, granularity: Granularity, regions: edits.Regions, project: Project, image: TaskImage
    ) -> edits.EditState:
        return edits.EditState(
            tree,
            granularity,
            regions,
            project.options.min_area,
            image.tag.placeholders,
            partial(region_id, image),
            partial(self._predictor.tree_for_interactive, image.reference, image.task.id),
        )

    def _edits(
        self, image: TaskImage, prompts: Sequence[Prompt]
    ) -> Iterator[Callable[[edits.EditState], edits.EditState]]:
        """Yield the edits of the prompts in order; a label of the control is given to the regions that they make.

        A box with a label of `_AT_A_POINT` counts as a point in its middle: Label Studio selects a bitmask or a vector
        that is clicked on, whatever the tool.
        """
        for _, group in groupby(prompts, key=lambda prompt: (type(prompt), prompt.label)):
            alike = list(group)
            verb, label = alike[0].label.lower(), alike[0].label if alike[0].label in image.tag.labels else ""
            boxes = [prompt for prompt in alike if isinstance(prompt, Box) and verb not in _AT_A_POINT]
            yield from (partial(self._edit_in_box, image, box, label) for box in boxes)
            points = [prompt.centre if isinstance(prompt, Box) else prompt for prompt in alike]
            match verb:
                case "finer":
                    yield from (partial(edits.split_region, point=point) for point in points)
                case "coarser":
                    yield from (partial(edits.merge_with_parent, point=point) for point in points)
                case "merge":
                    yield partial(edits.merge_regions, points=points)
                case _ if not boxes:
                    yield partial(edits.select, points=points, label=label)

    def _edit_in_box(self, image: TaskImage, box: Box, label: str, state: edits.EditState) -> edits.EditState:
        """Select in a box with a class or *Select*, else segment it again, by the tree of that crop."""
        crop = box.pixels(state.tree.size)
        crop_tree = self._predictor.tree_for_interactive(image.reference, image.task.id, crop)
        if image.tag.is_class(label) or box.label.lower() == "select":
            return edits.select_in_box(state, crop, crop_tree, f"box {crop}", label)
        return edits.resegment_box(state, crop, crop_tree, f"box {crop}")


def _connected(
    before: edits.Regions, ids: Collection[str], state: edits.EditState, image: TaskImage
) -> edits.EditState:
    """Return the state with a region for each connected part of those that are suggested, where their control needs it.

    Regions that an annotator drew may have several, too, as where a polygon crosses itself. Parts smaller than the
    smallest region are left out, but for the largest of a region.
    """
    for region in _suggested(before, ids, state):
        first, *others = connected_regions([region], image)
        if others:
            state = state.with_regions([first])
            for part in others:
                if np.count_nonzero(part.mask) >= state.min_pixels:
                    state = state.with_regions([replace(part, id=state.new_id(f"part of {region.id}"))])
    return state


def _diff(before: edits.Regions, ids: Collection[str], state: edits.EditState, image: TaskImage) -> Results:
    """Return the suggestions that turn a screen into the state.

    On the screen are the regions `before`, but other regions or none may have any of these `ids`.
    """
    changed = _suggested(before, ids, state)
    changed_ids = {region.id for region in changed}
    unchanged = [region for name, region in state.regions.items() if name not in changed_ids]
    deleted = [name for name in dict.fromkeys([*before, *sorted(ids)]) if name not in state.regions]
    return [
        *region_items(changed, image, unchanged),
        *deletion_markers(deleted, state.tree.size, image),
    ]


def _suggested(before: edits.Regions, ids: Collection[str], state: edits.EditState) -> list[Region]:
    """Return the regions of the state that differ from those `before`, or may differ, as they have one of the `ids`."""
    return [region for name, region in state.regions.items() if name in ids or before.get(name) is not region]


def _verb(prompt: Prompt, image_tag: ImageTag) -> str:
    """Return the label that says what a prompt does: a box without a command or a class segments again."""
    is_class = prompt.label in image_tag.labels and image_tag.is_class(prompt.label)
    return prompt.label if isinstance(prompt, Point) or is_prompt(prompt.label) or is_class else "Re-segment"


def _sentence(error: GranularityError) -> str:
    return str(error)[:1].upper() + str(error)[1:]


def answer_all(
    interactive: InteractiveSegmenter, tasks: Sequence[Task], project: Project, context: object
) -> list[Prediction]:
    """Return suggestions for each task, none for one that fails: Label Studio shows annotators no errors."""
    empty = Prediction([], "")
    return [isolate_failure(task, partial(interactive.answer, task, project, context), default=empty) for task in tasks]
