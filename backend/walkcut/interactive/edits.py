"""What an annotator points at, and what becomes of the regions on the screen."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool
from numpy import count_nonzero as count
from scipy.ndimage import binary_dilation

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Level, Segments
from walkcut.interactive.selection import enclosing_subtree, leaves_within, segment_at, select_leaves, split
from walkcut.labelstudio import Point, Region

Mask = Bool[np.ndarray, "y x"]


Regions = Mapping[str, Region]  # by id


@dataclass(frozen=True)
class EditState:
    """An image as an annotator works on it: its tree, the granularity chosen, the regions on the screen.

    No region of fewer than `least` pixels is made; new ones take the `generic_labels` labels, so that neighbours differ, and
    get their id by `identify` from words that say where they come from.
    """

    tree: CutTree
    granularity: Granularity
    regions: Regions
    least: float
    generic_labels: tuple[str, ...]
    identify: Callable[[str], str]

    def region_at(self, point: Point) -> Region:
        """The topmost region under a point; without one the segment there, less what regions hold of it."""
        place = point.pixel(self.tree.size)
        for region in reversed([*self.regions.values()]):
            if region.mask[place]:
                return region
        leaf = int(self.tree.leaves[place])
        segment = segment_at(self.tree, self.granularity, leaf)[self.tree.leaves]
        return self.new_region("segment", self.unclaimed(segment))

    def new_region(self, source: str, mask: Mask) -> Region:
        """A region that was not there before; its first pixel is in no other of the same source."""
        return Region(mask, self.label_for(mask), 1.0, id=self.identify(f"{source} {int(mask.argmax())}"))

    def unclaimed(self, mask: Mask) -> Mask:
        """The part of a mask that no region holds."""
        for region in self.regions.values():
            mask = mask & ~region.mask
        return mask

    def label_for(self, mask: Mask) -> str:
        """The neutral label that the fewest regions around a mask have."""
        rows, columns = (_span(np.any(mask, axis=axis)) for axis in (1, 0))
        around = binary_dilation(mask[rows, columns], iterations=2)
        beside = [region.label for region in self.regions.values() if (region.mask[rows, columns] & around).any()]
        return min(self.generic_labels, key=beside.count)

    def with_regions(self, changed: Sequence[Region], gone: Sequence[str] = ()) -> "EditState":
        """The scene with regions added or changed, and others gone."""
        kept = {identity: region for identity, region in self.regions.items() if identity not in gone}
        return replace(self, regions=kept | {region.id: region for region in changed})


def resegment_all(
    state: EditState, found: Sequence[Region], unmodified_region_ids: Sequence[str], source: str
) -> EditState:
    """All that is untouched replaced by what was found, under the same names as far as they go.

    The other regions stay, and what they hold is left out of the new ones.
    """
    state = state.with_regions([], unmodified_region_ids)
    if state.regions:
        unclaimed = [replace(region, mask=state.unclaimed(region.mask)) for region in found]
        found = [region for region in unclaimed if count(region.mask) >= state.least]
    new = (state.identify(f"{source} {number}") for number in range(len(found)))
    names = [*unmodified_region_ids, *new][: len(found)]
    return state.with_regions([replace(region, id=name) for region, name in zip(found, names, strict=True)])


def select(state: EditState, points: Sequence[Point], label: str = "") -> EditState:
    """The segments under the points as one new region, without what the unwanted points lie in."""
    leaves = [int(state.tree.leaves[point.pixel(state.tree.size)]) for point in points]
    positive = [leaf for leaf, point in zip(leaves, points, strict=True) if point.is_positive]
    negative = [leaf for leaf, point in zip(leaves, points, strict=True) if not point.is_positive]
    chosen = select_leaves(state.tree, state.granularity, positive, negative)
    if not chosen.any():
        raise GranularityError("nothing is selected: click without Alt on what you want")
    region = state.new_region("", chosen[state.tree.leaves])
    identity = state.identify(f"select {points[0].id}")  # the same while more points extend it
    return state.with_regions([replace(region, id=identity, label=label or region.label)])


def split_region(state: EditState, point: Point) -> EditState:
    """The region under a point in two; the part under the point keeps its name."""
    region = state.region_at(point)
    halves = split(state.tree.hierarchy, leaves_within(state.tree, region.mask), state.tree.areas, state.least)
    part = region.mask & halves[0][state.tree.leaves]
    rest = region.mask & ~part
    here, there = (part, rest) if part[point.pixel(state.tree.size)] else (rest, part)
    state = state.with_regions([replace(region, mask=here)])
    other = state.new_region(region.id, there)
    label = other.label if region.label in state.generic_labels else region.label
    return state.with_regions([replace(other, label=label)])


def merge_with_parent(state: EditState, point: Point) -> EditState:
    """The region under a point joined with what is nearest to it in the tree.

    Regions that lie in there with half of their pixels become part of it; others keep what is theirs.
    """
    region, areas = state.region_at(point), state.tree.areas
    others = [other for other in state.regions.values() if other.id != region.id]
    leaves = leaves_within(state.tree, region.mask)
    leaves[state.tree.leaves[point.pixel(state.tree.size)]] = True  # of a region smaller than any leaf too
    while True:
        inside = leaves[state.tree.leaves]
        joined = [other for other in others if 2 * count(other.mask & inside) >= count(other.mask)]
        grown = np.any([region.mask, state.unclaimed(inside), *(other.mask for other in joined)], axis=0)
        if count(grown & ~region.mask) >= state.least:
            return state.with_regions([replace(region, mask=grown)], [other.id for other in joined])
        leaves = enclosing_subtree(state.tree.hierarchy, leaves, areas, state.least)


def merge_regions(state: EditState, points: Sequence[Point]) -> EditState:
    """The regions under the points as one, under the name and label of the first that has a label of its own."""
    chosen: dict[str, Region] = {}
    for point in points:
        region = state.region_at(point)
        state = state.with_regions([region])
        if point.is_positive:
            chosen[region.id] = region
        else:
            chosen.pop(region.id, None)
    if len(chosen) < 2:
        raise GranularityError("click on another region to merge it with the first")
    named = [region for region in chosen.values() if region.label not in state.generic_labels]
    kept = (named or list(chosen.values()))[0]
    union = np.any([region.mask for region in chosen.values()], axis=0)
    return state.with_regions([replace(kept, mask=union)], [identity for identity in chosen if identity != kept.id])


def resegment_box(state: EditState, place: tuple[slice, slice], inside: CutTree, source: str) -> EditState:
    """What lies in a box segmented anew, by the tree of that part of the image.

    What runs on beyond the box, in a region that does so too, stays with that region. A new segment takes the label of
    the region that held most of it.
    """
    granularity = Level.AUTO if isinstance(state.granularity, Segments) else state.granularity
    labels = np.full(state.tree.size, -1)
    labels[place] = inside.labels(granularity)
    edge = _inner_edge(state.tree.size, place)
    box = labels >= 0
    for segment in range(int(labels.max()) + 1):
        mask = labels == segment
        holder = _dominant_region(state, mask)
        stays = holder is not None and bool((mask & edge).any() and (holder.mask & ~box).any())
        if not stays and count(mask) >= state.least:
            region = state.new_region(source, mask)
            label = region.label if holder is None or holder.label in state.generic_labels else holder.label
            state = _subtract(state, mask).with_regions([replace(region, label=label)])
    return state


def _dominant_region(state: EditState, mask: Mask) -> Region | None:
    """The region that holds half of a mask at least, if one does."""
    largest = max(state.regions.values(), key=lambda region: count(region.mask & mask), default=None)
    return largest if largest is not None and 2 * count(largest.mask & mask) >= count(mask) else None


def _subtract(state: EditState, mask: Mask) -> EditState:
    """The regions without a mask; those of which hardly anything is left go."""
    touched = [region for region in state.regions.values() if (region.mask & mask).any()]
    left = [replace(region, mask=region.mask & ~mask) for region in touched]
    return state.with_regions(
        [region for region in left if count(region.mask) >= state.least],
        [region.id for region in left if count(region.mask) < state.least],
    )


def _span(inside: Bool[np.ndarray, " n"]) -> slice:
    """From two places before the first that is inside to two after the last."""
    places = np.flatnonzero(inside)
    return slice(max(0, places[0] - 2), places[-1] + 3)


def _inner_edge(size: tuple[int, int], place: tuple[slice, slice]) -> Mask:
    """The outermost pixels of a box, but for those at the image's own border."""
    box = np.zeros(size, np.bool_)
    box[place] = True
    return box & binary_dilation(~box)
