"""Editing sessions: the regions on an annotator's screen, as the backend estimates them."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from threading import Lock
from typing import Any

import numpy as np
from cachetools import LRUCache
from jaxtyping import Bool, Int64

from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.interactive.edits import Regions
from walkcut.labelstudio.annotations import annotated_regions
from walkcut.labelstudio.predictions import Region, region_id, region_id_prefix
from walkcut.labelstudio.prompts import Prompt
from walkcut.labelstudio.results import result_items
from walkcut.labelstudio.shapes import SHAPES
from walkcut.labelstudio.shapes.rle import mask_from_runs, run_lengths
from walkcut.labelstudio.tasks import Task, TaskImage
from walkcut.learning.outline_fit import OUTLINES, fit_outline

_MAX_IMAGES = 64
_MAX_ANNOTATORS = 4  # of one image at the same time
_DRAFT_DELAY_S = 15.0  # Label Studio saves a draft some seconds after a change
_REACH = 2  # pixels that a polygon may run beside its mask, with a tolerance of one
_NO_MASK = np.zeros((0, 0), np.bool_)

_PackedRegions = tuple[tuple[Region, Int64[np.ndarray, "_"]], ...]  # without its mask, and the mask's run lengths
_Versions = frozenset[tuple[str, str]]  # ids of documents, with the times of their last change by Label Studio's clock


@dataclass(frozen=True)
class Screen:
    """An estimate of what is on an annotator's screen: its regions, and `ids` of all that may be there instead.

    A task does not tell which of its predictions an annotation was started from, nor which of its annotations is on the
    screen. Those that are regions of walkcut's have `ids` in common. Regions with the `uncertain` ids may well differ
    from these `regions`: the last suggestions may have been rejected, and an annotation may be somebody else's.
    """

    regions: Regions
    ids: frozenset[str]
    uncertain: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Interaction:
    """The last interactive call about an image: its time, granularity and prompt ids, the regions before and after.

    `seen` are the drafts and annotations that the task had, `uncertain` the ids that were so before, and `time` is in
    seconds of the store's clock.
    """

    time: float
    annotator: str  # empty without a draft: nothing else in a call names the caller
    seen: _Versions
    granularity: Granularity
    prompt_ids: frozenset[str]
    before: _PackedRegions
    after: _PackedRegions
    uncertain: frozenset[str]
    changed: frozenset[str]  # ids of regions that its suggestions add, change or delete


class SessionStore:
    """The last interactions of each image, one of each annotator; safe to share between threads.

    Label Studio reports the regions on the screen in a draft, which it saves some seconds after a change; the last
    interaction bridges that time. `clock` returns seconds and never goes back; no time of Label Studio's is compared
    with it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._interactions: LRUCache[tuple[int, str], tuple[Interaction, ...]] = LRUCache(_MAX_IMAGES)
        self._lock = Lock()

    def granularity(self, image: TaskImage, prompts: Sequence[Prompt] = ()) -> Granularity | None:
        """Return the granularity of the last interaction as long as `screen` follows it, else None."""
        interaction = self._last(image, prompts)
        if interaction is None:
            return None
        counts = _is_repeated(interaction, prompts) or self._counts(interaction, image.task)
        return interaction.granularity if counts else None

    def screen(self, image: TaskImage, tree: CutTree, prompts: Sequence[Prompt] = ()) -> Screen:
        """Return the regions that commands and prompts refer to, from the first of these sources that applies.

        1. Those before the last interaction, if the prompts include one of it: Label Studio sends all prompts again
           with each new one.
        2. Those after the last interaction, for 15 s, unless a draft or an annotation was saved since.
        3. The draft, else the annotation that was changed last, else the last prediction: Label Studio starts
           annotations from that one.
        """
        interaction = self._last(image, prompts)
        documents = _document_regions(image, tree, prompts)
        ids = _known_ids(image, documents)
        uncertain = ids if image.task.annotations and not image.task.drafts else frozenset[str]()
        if interaction is None:
            return Screen(self._exact(image, documents), ids, uncertain)
        before, after = _unpack(interaction.before, tree.size), _unpack(interaction.after, tree.size)
        ids |= _own_ids(image, before) | _own_ids(image, after)
        if _is_repeated(interaction, prompts):
            return Screen(before, ids, interaction.uncertain)
        if self._counts(interaction, image.task):
            return Screen(after, ids, interaction.uncertain | interaction.changed)
        return Screen(self._exact(image, documents), ids, uncertain)

    def save(
        self,
        image: TaskImage,
        granularity: Granularity,
        prompts: Sequence[Prompt],
        screen: Screen,
        after: Regions,
    ) -> None:
        """Save the last interaction of a task's image, which changed the regions of a `screen`."""
        prompt_ids, before = frozenset(prompt.id for prompt in prompts), screen.regions
        changed = frozenset(name for name in {*before, *after} if before.get(name) is not after.get(name))
        packed = _pack(before), _pack(after)
        interaction = Interaction(
            self._clock(),
            _annotator(image.task),
            _versions(image.task),
            granularity,
            prompt_ids,
            *packed,
            screen.uncertain,
            changed,
        )
        key = _key(image)
        with self._lock:
            others = [old for old in self._interactions.get(key, ()) if not _continues(interaction, old)]
            self._interactions[key] = (*others[1 - _MAX_ANNOTATORS :], interaction)

    def _exact(self, image: TaskImage, documents: Regions) -> Regions:
        """Return regions of a document with the masks that their polygons were made from, as far as they are known.

        A polygon runs up to its tolerance beside its mask. What is drawn from the mask itself has the same border
        again, which neighbours share.
        """
        with self._lock:
            interactions = self._interactions.get(_key(image), ())
        written = {region.id: lengths for interaction in interactions for region, lengths in interaction.after}
        exact = dict(documents)
        for name, region in documents.items():
            if name in written and SHAPES[region.shape].is_connected:
                mask = mask_from_runs(written[name], (region.mask.shape[0], region.mask.shape[1]))
                exact[name] = replace(region, mask=mask) if _is_close(region.mask, mask) else region
        return exact

    def _counts(self, interaction: Interaction, task: Task) -> bool:
        """Return whether an interaction tells more than the task's documents do."""
        return self._clock() < interaction.time + _DRAFT_DELAY_S and interaction.seen == _versions(task)

    def _last(self, image: TaskImage, prompts: Sequence[Prompt]) -> Interaction | None:
        """Return the last interaction that one of the prompts was part of, else the annotator's last one."""
        with self._lock:
            interactions = self._interactions.get(_key(image), ())
        repeated = [interaction for interaction in interactions if _is_repeated(interaction, prompts)]
        own = [interaction for interaction in interactions if interaction.annotator == _annotator(image.task)]
        return next(reversed(repeated or own), None)


def _annotator(task: Task) -> str:
    """Return who calls: Label Studio sends the drafts of the caller alone. Empty without a draft."""
    return str(task.drafts[-1].get("user", "")) if task.drafts else ""


def _continues(interaction: Interaction, last: Interaction) -> bool:
    """Return whether an interaction is certainly of the annotator of the last one."""
    is_named = bool(interaction.annotator) and interaction.annotator == last.annotator
    return is_named or bool(interaction.prompt_ids & last.prompt_ids)


def _document_regions(image: TaskImage, tree: CutTree, prompts: Sequence[Prompt]) -> Regions:
    """Return the regions of the document that is on the screen, unless something was changed since it was saved.

    Boxes and ellipses stand for the segment that fits them, where the image's regions are written as such; elsewhere
    they lie above the regions, and are no part of them.
    """
    task = image.task
    document = next((documents[-1] for documents in (task.drafts, task.annotations) if documents), None)
    result = [{"origin": "prediction", **item} for item in _items(task.predictions[-1:])]
    drawn = annotated_regions(document["result"] if document else result, image, tree.size)
    written = {control.shape for control in image.tag.controls}
    prompt_ids = {prompt.id for prompt in prompts}
    return _by_id(
        [
            fit_outline(region, tree)
            for region in drawn
            if region.id not in prompt_ids and (region.shape not in OUTLINES or region.shape in written)
        ]
    )


def _is_close(mask: Bool[np.ndarray, "y x"], exact: Bool[np.ndarray, "y x"]) -> bool:
    """Return whether all pixels in which two masks differ lie within `_REACH` pixels of the second one's border."""
    y, x = np.nonzero(mask ^ exact)
    near = np.zeros(len(y), np.bool_)
    steps = range(-_REACH, _REACH + 1)
    for dy, dx in product(steps, steps):
        rows, columns = (y + dy).clip(0, exact.shape[0] - 1), (x + dx).clip(0, exact.shape[1] - 1)
        near |= exact[rows, columns] != exact[y, x]
    return bool(near.all())


def _is_repeated(interaction: Interaction, prompts: Sequence[Prompt]) -> bool:
    return bool(interaction.prompt_ids & {prompt.id for prompt in prompts})


def _known_ids(image: TaskImage, documents: Regions) -> frozenset[str]:
    """Return the ids that walkcut gave to regions in any of a task's documents, and those on the screen.

    A draft is the annotator's own. Another document may be that of somebody else, who drew what is not on the screen.
    """
    task, prefix = image.task, region_id_prefix(image)
    ids = (str(item.get("id")) for item in _items((*task.predictions, *task.annotations, *task.drafts)))
    known = frozenset(identity for identity in ids if identity.startswith(prefix))
    return known | (_own_ids(image, documents) if task.drafts else frozenset(documents))


def _own_ids(image: TaskImage, regions: Regions) -> frozenset[str]:
    """Return the ids of all regions but those that a person drew."""
    prefix = region_id_prefix(image)
    return frozenset(name for name, region in regions.items() if not region.modified or name.startswith(prefix))


def _items(documents: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    return (item for document in documents for item in result_items(document["result"]))


def _versions(task: Task) -> _Versions:
    documents = (*task.drafts, *task.annotations)
    return frozenset((str(document.get("id")), str(document.get("updated_at"))) for document in documents)


def _by_id(regions: Sequence[Region]) -> Regions:
    return {region.id: region for region in regions}


def _key(image: TaskImage) -> tuple[int, str]:
    return image.task.id, region_id(image, "")  # short: a reference may be a `data:` URL


def _pack(regions: Regions) -> _PackedRegions:
    return tuple((replace(region, mask=_NO_MASK), run_lengths(region.mask.ravel())) for region in regions.values())


def _unpack(regions: _PackedRegions, size: tuple[int, int]) -> Regions:
    return _by_id([replace(region, mask=mask_from_runs(lengths, size)) for region, lengths in regions])
