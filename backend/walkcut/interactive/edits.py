"""Edits of the regions on the screen: select, split, merge, and segment again."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count as count_from

import numpy as np
from jaxtyping import Bool
from numpy import count_nonzero as count
from scipy.ndimage import binary_dilation

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Level, Segments
from walkcut.interactive.selection import enclosing_subtree, leaves_within, select_mask, split_leaves
from walkcut.labelstudio.predictions import Region
from walkcut.labelstudio.prompts import Point
from walkcut.masks.bounds import bounding_box
from walkcut.storage import Crop

Mask = Bool[np.ndarray, "y x"]
Regions = Mapping[str, Region]  # by id, bottom to top


@dataclass(frozen=True)
class EditState:
    """An image being edited: its tree, the granularity chosen, and the regions on the screen.

    Edits make no region smaller than the fraction `min_area` of the image. Regions that nobody has named take the
    `placeholders` (see `ImageTag`) so that neighbours differ. A new region gets an id that `make_id` derives from a
    text that names its origin, and that no region has yet. `crop_tree` returns the tree of a part of the image.
    """

    tree: CutTree
    granularity: Granularity
    regions: Regions
    min_area: float
    placeholders: tuple[str, ...]
    make_id: Callable[[str], str]
    crop_tree: Callable[[Crop], CutTree]

    @property
    def min_pixels(self) -> float:
        """The size of the smallest region, in pixels."""
        return max(1.0, self.min_area * self.tree.leaves.size)

    def region_at(self, point: Point) -> Region:
        """Return the topmost region at a point, or else a new one of the unclaimed part of the segment there."""
        pixel = point.pixel(self.tree.size)
        for region in reversed([*self.regions.values()]):
            if region.mask[pixel]:
                return region
        labels = self.tree.labels(self.granularity)
        return self.new_region("segment", self.unclaimed(labels == labels[pixel]))

    def new_region(self, source: str, mask: Mask) -> Region:
        """Return a new region without a name."""
        return self.recoloured(Region(mask, "", id=self.new_id(f"{source} {int(mask.argmax())}")))

    def is_named(self, region: Region) -> bool:
        """Return whether a region's label names a kind of object."""
        return region.label not in {"", *self.placeholders}

    def recoloured(self, region: Region) -> Region:
        """Return a region, with the placeholder that the fewest others within two pixels have unless it is named.

        Of equal ones it keeps its own.
        """
        if self.is_named(region):
            return region
        mask, others = region.mask, [other for other in self.regions.values() if other.id != region.id]
        box = tuple(slice(max(0, span.start - 2), span.stop + 2) for span in bounding_box(mask))
        around = binary_dilation(mask[box], iterations=2)
        nearby = [other.label for other in others if (other.mask[box] & around).any()]
        label = min(self.placeholders, key=lambda label: (nearby.count(label), label != region.label))
        return replace(region, label=label)

    def new_id(self, source: str) -> str:
        """Return the id of a source, made again where a region has it."""
        identity = self.make_id(source)
        while identity in self.regions:
            identity = self.make_id(identity)
        return identity

    def unclaimed(self, mask: Mask) -> Mask:
        """Return the part of a mask that is in no region."""
        for region in self.regions.values():
            mask = mask & ~region.mask
        return mask

    def with_regions(self, changed: Sequence[Region], deleted: Sequence[str] = ()) -> "EditState":
        """Return the state with regions added or changed, and others (by id) deleted."""
        kept = {identity: region for identity, region in self.regions.items() if identity not in deleted}
        return replace(self, regions=kept | {region.id: region for region in changed})


def resegment_all(state: EditState, segmented: Sequence[Region]) -> EditState:
    """Replace all unmodified regions by segmented ones, which take the ids of a prediction's regions.

    Modified regions keep their ids and pixels, which are left out of the new ones.
    """
    state = state.with_regions([], [region.id for region in state.regions.values() if not region.modified])
    if state.regions:
        unclaimed = [replace(region, mask=state.unclaimed(region.mask)) for region in segmented]
        segmented = [region for region in unclaimed if count(region.mask) >= state.min_pixels]
    ids = (identity for identity in map(state.make_id, map(str, count_from())) if identity not in state.regions)
    return state.with_regions([replace(region, id=name) for region, name in zip(segmented, ids, strict=False)])


def select(state: EditState, points: Sequence[Point], label: str = "") -> EditState:
    """Add one region of the segments at positive points, without the parts that belong to negative points.

    It is cut out of all others. It gets the `label`, else the name of the region that held most of it.
    """
    positive = [point.pixel(state.tree.size) for point in points if point.is_positive]
    negative = [point.pixel(state.tree.size) for point in points if not point.is_positive]
    mask = select_mask(state.tree, state.granularity, positive, negative, state.crop_tree)
    if not mask.any():
        raise GranularityError("nothing selected: click without Alt")
    identity = state.new_id(f"select {points[0].id}")  # the same while further points extend it
    region = _named(_named_as_before(state, Region(mask, "", id=identity)), label)
    state = _subtract(state, mask)
    return state.with_regions([state.recoloured(region)])


def split_region(state: EditState, point: Point) -> EditState:
    """Split the region at a point in two; the part at the point keeps the id."""
    region = state.region_at(point)
    leaves, _ = split_leaves(state.tree, leaves_within(state.tree, region.mask), state.min_pixels)
    part = region.mask & leaves[state.tree.leaves]
    rest = region.mask & ~part
    kept, separated = (part, rest) if part[point.pixel(state.tree.size)] else (rest, part)
    state = state.with_regions([replace(region, mask=kept)])
    new = state.new_region(region.id, separated)
    label = region.label if state.is_named(region) else new.label
    return state.with_regions([replace(new, label=label, modified=region.modified)])


def merge_with_parent(state: EditState, point: Point) -> EditState:
    """Extend the region at a point to the smallest enclosing subtree that adds `min_pixels`.

    Regions with at least half of their pixels in there are merged into it; the others keep their pixels.
    """
    region = state.region_at(point)
    neighbours = [neighbour for neighbour in state.regions.values() if neighbour.id != region.id]
    leaves = leaves_within(state.tree, region.mask)
    leaves[state.tree.leaves[point.pixel(state.tree.size)]] = True  # also for a region smaller than any leaf
    while True:
        inside = leaves[state.tree.leaves]
        merged = [neighbour for neighbour in neighbours if 2 * count(neighbour.mask & inside) >= count(neighbour.mask)]
        union = np.any([region.mask, state.unclaimed(inside), *(neighbour.mask for neighbour in merged)], axis=0)
        if count(union & ~region.mask) >= state.min_pixels:
            modified = any(part.modified for part in (region, *merged))
            state = state.with_regions([], [neighbour.id for neighbour in merged])
            return state.with_regions([state.recoloured(replace(region, mask=union, modified=modified))])
        leaves = enclosing_subtree(state.tree, leaves, state.min_pixels)


def merge_regions(state: EditState, points: Sequence[Point]) -> EditState:
    """Merge the regions at positive points, under id and label of the first that is named."""
    chosen: dict[str, Region] = {}
    for point in points:
        region = state.region_at(point)
        state = state.with_regions([region])
        if point.is_positive:
            chosen[region.id] = region
        else:
            chosen.pop(region.id, None)
    if len(chosen) < 2:
        raise GranularityError("click on one more region to merge")
    kept = next(filter(state.is_named, chosen.values()), next(iter(chosen.values())))
    union = np.any([region.mask for region in chosen.values()], axis=0)
    kept = replace(kept, mask=union, modified=any(region.modified for region in chosen.values()))
    state = state.with_regions([], [identity for identity in chosen if identity != kept.id])
    return state.with_regions([state.recoloured(kept)])


def resegment_box(state: EditState, crop: Crop, crop_tree: CutTree, source: str) -> EditState:
    """Segment the inside of a box again, by the cut tree of that crop.

    A segment that reaches the box's edge stays with its region if that continues outside the box. New segments take the
    name of the region that held most of them.
    """
    for mask in _inner_segments(state, crop, crop_tree):
        if count(mask) >= state.min_pixels:
            region = _named_as_before(state, state.new_region(source, mask))
            state = _subtract(state, mask)
            state = state.with_regions([state.recoloured(region)])
    return state


def select_in_box(state: EditState, crop: Crop, crop_tree: CutTree, source: str, label: str) -> EditState:
    """Add one region: the segments inside a box that `resegment_box` would make, or all if there are none.

    It is cut out of all others. It gets the `label`, else the name of the region that held most of it.
    """
    masks = list(_inner_segments(state, crop, crop_tree))
    mask = np.any(masks, axis=0) if masks else _in_crop(state, crop, np.True_)
    region = _named(_named_as_before(state, state.new_region(source, mask)), label)
    state = _subtract(state, mask)
    return state.with_regions([state.recoloured(region)])


def _inner_segments(state: EditState, crop: Crop, crop_tree: CutTree) -> Iterator[Mask]:
    """Yield the segments of a crop, without those at its edge whose region continues outside; see `resegment_box`."""
    granularity = Level.AUTO if isinstance(state.granularity, Segments) else state.granularity
    labels, box = crop_tree.labels(granularity), _in_crop(state, crop, np.True_)
    edge = box & binary_dilation(~box)  # without the image's border
    for segment in range(int(labels.max()) + 1):
        mask = _in_crop(state, crop, labels == segment)
        dominant = _dominant_region(state, mask)
        if dominant is None or not (mask & edge).any() or not (dominant.mask & ~box).any():
            yield mask


def _in_crop(state: EditState, crop: Crop, inside: Bool[np.ndarray, "h w"] | np.bool_) -> Mask:
    """Return a mask of the image, with `inside` in the crop and nothing elsewhere."""
    mask = np.zeros(state.tree.size, np.bool_)
    mask[crop] = inside
    return mask


def _dominant_region(state: EditState, mask: Mask) -> Region | None:
    """Return the region that holds at least half of a mask, if there is one."""
    largest = max(state.regions.values(), key=lambda region: count(region.mask & mask), default=None)
    return largest if largest is not None and 2 * count(largest.mask & mask) >= count(mask) else None


def _named_as_before(state: EditState, region: Region) -> Region:
    """Return a region, with the name of the one that holds at least half of it, if there is one."""
    dominant = _dominant_region(state, region.mask)
    if dominant is None or not state.is_named(dominant):
        return region
    return replace(region, label=dominant.label, modified=dominant.modified)


def _named(region: Region, label: str) -> Region:
    """Return a region with a label that a person chose; as it is without one."""
    return replace(region, label=label, modified=True) if label else region


def _subtract(state: EditState, mask: Mask) -> EditState:
    """Remove a mask from all regions, and delete those that become too small."""
    overlapping = [region for region in state.regions.values() if (region.mask & mask).any()]
    remaining = [replace(region, mask=region.mask & ~mask) for region in overlapping]
    return state.with_regions(
        [region for region in remaining if count(region.mask) >= state.min_pixels],
        [region.id for region in remaining if count(region.mask) < state.min_pixels],
    )
