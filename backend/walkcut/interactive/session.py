"""Editing sessions: the regions on an annotator's screen, as the backend estimates them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from functools import partial
from threading import Lock
from typing import Any

import numpy as np
from cachetools import LRUCache
from jaxtyping import Int64

from walkcut.errors import RequestError
from walkcut.hierarchy.granularity import Granularity
from walkcut.interactive.edits import Regions
from walkcut.labelstudio.annotations import annotated_regions
from walkcut.labelstudio.brush import mask_from_runs, run_lengths
from walkcut.labelstudio.config import BrushControl
from walkcut.labelstudio.predictions import Region, region_id
from walkcut.labelstudio.prompts import Prompt, result_items
from walkcut.labelstudio.tasks import Task, parse_timestamp

_MAX_INTERACTIONS = 64  # images
_DRAFT_DELAY = timedelta(seconds=15)  # Label Studio saves a draft some seconds after a change

_PackedRegions = tuple[tuple[str, str, Int64[np.ndarray, "_"]], ...]  # id, label and run lengths of each


@dataclass(frozen=True)
class Interaction:
    """The last interactive call about an image: its time, granularity and prompt ids, the regions before and after."""

    time: datetime
    granularity: Granularity
    prompt_ids: frozenset[str]
    before: _PackedRegions
    after: _PackedRegions


class SessionStore:
    """The last interaction of each image, least recently used dropped first; safe to share between threads.

    Label Studio reports the regions on the screen in a draft, which it saves some seconds after a change; the last
    interaction bridges that time. `clock` returns the time with its zone.
    """

    def __init__(self, clock: Callable[[], datetime] | None = None) -> None:
        self._clock = clock or partial(datetime.now, timezone.utc)
        self._interactions: LRUCache[tuple[int, str], Interaction] = LRUCache(_MAX_INTERACTIONS)
        self._lock = Lock()

    def granularity(self, task: Task, control: BrushControl) -> Granularity | None:
        """Return the granularity of the last interaction, None without one."""
        interaction = self._last(task, control)
        return None if interaction is None else interaction.granularity

    def regions(
        self, task: Task, control: BrushControl, size: tuple[int, int], prompts: Sequence[Prompt], version: str
    ) -> Regions:
        """Return the regions that prompts refer to, from the first of these sources that applies.

        1. Those before the last interaction, if the prompts include one of it: Label Studio sends all prompts again
           with each new one.
        2. Those after the last interaction, for 15 s, unless a draft was saved since.
        3. The draft, else the annotation that was changed last, else the prediction of this model `version`, which
           annotations start from.
        """
        interaction = self._last(task, control)
        if interaction is not None and interaction.prompt_ids & {prompt.id for prompt in prompts}:
            return _unpack(interaction.before, size)
        now = self._clock()
        if interaction is not None and max(_draft_time(task), now - _DRAFT_DELAY) < interaction.time <= now:
            return _unpack(interaction.after, size)
        current = [document for document in task.predictions if document.get("model_version") == version]
        sources = (task.drafts, task.annotations, current or task.predictions)
        newest = next((documents[-1] for documents in sources if documents), {})
        return regions_by_id(newest, control, size)

    def save(
        self,
        task: Task,
        control: BrushControl,
        granularity: Granularity,
        prompts: Sequence[Prompt],
        before: Regions,
        after: Regions,
    ) -> None:
        """Save the last interaction of a task's image."""
        prompt_ids = frozenset(prompt.id for prompt in prompts)
        interaction = Interaction(self._clock(), granularity, prompt_ids, _pack(before), _pack(after))
        with self._lock:
            self._interactions[_key(task, control)] = interaction

    def _last(self, task: Task, control: BrushControl) -> Interaction | None:
        with self._lock:
            return self._interactions.get(_key(task, control))


def regions_by_id(document: Mapping[str, Any], control: BrushControl, size: tuple[int, int]) -> Regions:
    """Return the regions of a draft, an annotation or a prediction."""
    return {region.id: region for region in annotated_regions(document.get("result"), control, size)}


def unmodified_region_ids(task: Task, control: BrushControl) -> list[str]:
    """Return the ids of the draft's regions that are unchanged predictions with a neutral label."""
    neutral_labels = [[label] for label in control.neutral_labels]
    return [
        str(item.get("id"))
        for item in result_items(task.draft.get("result"))
        if (item.get("origin"), item.get("from_name")) == ("prediction", control.from_name)
        and item["value"].get("brushlabels") in neutral_labels
    ]


def _key(task: Task, control: BrushControl) -> tuple[int, str]:
    return task.id, region_id(task, control, "")  # short: a reference may be a `data:` URL


def _pack(regions: Regions) -> _PackedRegions:
    return tuple((region.id, region.label, run_lengths(region.mask.ravel())) for region in regions.values())


def _unpack(regions: _PackedRegions, size: tuple[int, int]) -> Regions:
    return {name: Region(mask_from_runs(lengths, size), label, id=name) for name, label, lengths in regions}


def _draft_time(task: Task) -> datetime:
    """Return the time at which the draft was last saved; long ago where it has none."""
    try:
        return parse_timestamp(task.draft.get("updated_at"))
    except RequestError:
        return datetime.min.replace(tzinfo=timezone.utc)
