"""What is on an annotator's screen, as far as a backend can know."""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64

from walkcut.errors import RequestError
from walkcut.hierarchy.granularity import Granularity
from walkcut.interactive.edits import Regions
from walkcut.labelstudio import BrushControl, Prompt, Region, Task, annotated_regions, parse_timestamp

_MAX_INTERACTIONS = 64  # images
_UNSAVED = timedelta(seconds=15)  # Label Studio saves a draft some seconds after a change
_LONG_AGO = datetime.min.replace(tzinfo=timezone.utc)

_Packed = tuple[tuple[str, str, Int64[np.ndarray, "_"]], ...]  # id and label of each region, and where runs begin


@dataclass(frozen=True)
class Interaction:
    """What an annotator asked last of an image: the prompts, and the regions before and after."""

    when: datetime
    granularity: Granularity
    prompts: frozenset[str]
    before: _Packed
    after: _Packed


class SessionStore:
    """The screens of the images that annotators worked on lately.

    Label Studio tells what is on the screen by a draft, which it saves some seconds later; the last exchange is
    remembered to bridge that time. `clock` tells the time with its zone.
    """

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        self._clock = clock or partial(datetime.now, timezone.utc)
        self._interactions: OrderedDict[tuple[int, str], Interaction] = OrderedDict()
        self._lock = Lock()

    def granularity(self, task: Task, control: BrushControl) -> Granularity | None:
        """The granularity of the last exchange, if that is remembered."""
        interaction = self._last(task, control)
        return None if interaction is None else interaction.granularity

    def regions(
        self, task: Task, control: BrushControl, size: tuple[int, int], prompts: Sequence[Prompt], version: str
    ) -> Regions:
        """The regions that prompts are about.

        While prompts of the last exchange are open, those before it, since they come again with each that is added;
        for a while after it what it led to, unless a draft was saved since. Else those of the draft, of the annotation
        that was changed last, or of the prediction of this `version`, with which annotations begin.
        """
        interaction = self._last(task, control)
        if interaction is not None and interaction.prompts & {prompt.id for prompt in prompts}:
            return _unpacked(interaction.before, size)
        now = self._clock()
        if interaction is not None and max(_saved(task), now - _UNSAVED) < interaction.when <= now:
            return _unpacked(interaction.after, size)
        predictions = [each for each in task.predictions if each.get("model_version") == version] or task.predictions
        newest = next((documents[-1] for documents in (task.drafts, task.annotations, predictions) if documents), {})
        return _regions(newest, control, size)

    def remember(
        self,
        task: Task,
        control: BrushControl,
        granularity: Granularity,
        prompts: Sequence[Prompt],
        before: Regions,
        after: Regions,
    ) -> None:
        """Keep an exchange; the oldest one is forgotten where there are too many."""
        names = frozenset(prompt.id for prompt in prompts)
        interaction = Interaction(self._clock(), granularity, names, _packed(before), _packed(after))
        with self._lock:
            self._interactions.pop(_key(task, control), None)
            self._interactions[_key(task, control)] = interaction
            while len(self._interactions) > _MAX_INTERACTIONS:
                self._interactions.popitem(last=False)

    def _last(self, task: Task, control: BrushControl) -> Interaction | None:
        with self._lock:
            return self._interactions.get(_key(task, control))


def draft_regions(task: Task, control: BrushControl, size: tuple[int, int]) -> Regions:
    """The regions of the annotator's draft, which are on the screen for sure."""
    return _regions(task.drafts[-1], control, size) if task.drafts else {}


def unmodified_region_ids(task: Task, control: BrushControl) -> list[str]:
    """The ids of the draft's regions that are as walkcut drew them, under a label that says nothing."""
    items = [item for item in (task.drafts[-1]["result"] if task.drafts else []) if isinstance(item, dict)]
    drawn = [
        item for item in items if item.get("origin") == "prediction" and item.get("from_name") == control.from_name
    ]
    generic_labels = [[label] for label in control.generic_labels]
    return [
        str(item.get("id"))
        for item in drawn
        if isinstance(item.get("value"), dict) and item["value"].get("brushlabels") in generic_labels
    ]


def _key(task: Task, control: BrushControl) -> tuple[int, str]:
    return task.id, f"{control.to_name} {task.reference(control)}"


def _regions(document: Mapping[str, Any], control: BrushControl, size: tuple[int, int]) -> Regions:
    found = annotated_regions(document.get("result"), control, size)
    return {each.id: Region(each.mask, each.label, 1.0, id=each.id) for each in found}


def _packed(regions: Regions) -> _Packed:
    return tuple((each.id, each.label, _runs(each.mask.ravel())) for each in regions.values())


def _unpacked(regions: _Packed, size: tuple[int, int]) -> Regions:
    return {name: Region(_mask(runs, size), label, 1.0, id=name) for name, label, runs in regions}


def _runs(inside: Bool[np.ndarray, " n"]) -> Int64[np.ndarray, " r"]:
    """Where runs of pixels begin, outside and inside in turn; the first begins at 0."""
    changes = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    return np.concatenate([[0] * (1 + int(inside[0])), changes])


def _mask(runs: Int64[np.ndarray, " r"], size: tuple[int, int]) -> Bool[np.ndarray, "y x"]:
    lengths = np.diff(runs, append=size[0] * size[1])
    return np.repeat(np.arange(len(runs)) % 2 == 1, lengths).reshape(size)


def _saved(task: Task) -> datetime:
    """When the draft was saved last; long ago where there is none, or where it does not say."""
    try:
        return parse_timestamp(task.drafts[-1].get("updated_at")) if task.drafts else _LONG_AGO
    except RequestError:
        return _LONG_AGO
