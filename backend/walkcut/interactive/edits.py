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
from walkcut.interactive.selection import fold, leaves_within, segment_at, select, split
from walkcut.labelstudio import Point, Region

Mask = Bool[np.ndarray, "y x"]


Regions = Mapping[str, Region]  # by id


@dataclass(frozen=True)
class Scene:
    """A picture as an annotator works on it: its tree, the granularity chosen, the regions on the screen.

    No region of fewer than `least` pixels is made; new ones take the `neutral` labels, so that neighbours differ, and
    get their id by `identify` from words that say where they come from.
    """

    tree: CutTree
    granularity: Granularity
    regions: Regions
    least: float
    neutral: tuple[str, ...]
    identify: Callable[[str], str]

    def region_at(self, point: Point) -> Region:
        """The topmost region under a point; without one the segment there, less what regions hold of it."""
        place = point.pixel(self.tree.size)
        for region in reversed([*self.regions.values()]):
            if region.mask[place]:
                return region
        leaf = int(self.tree.leaves[place])
        segment = segment_at(self.tree, self.granularity, leaf)[self.tree.leaves]
        return self.new_region("segment", self.free(segment))

    def new_region(self, source: str, mask: Mask) -> Region:
        """A region that was not there before; its first pixel is in no other of the same source."""
        return Region(mask, self.label_for(mask), 1.0, id=self.identify(f"{source} {int(mask.argmax())}"))

    def free(self, mask: Mask) -> Mask:
        """The part of a mask that no region holds."""
        for region in self.regions.values():
            mask = mask & ~region.mask
        return mask

    def label_for(self, mask: Mask) -> str:
        """The neutral label that the fewest regions around a mask have."""
        rows, columns = (_span(np.any(mask, axis=axis)) for axis in (1, 0))
        around = binary_dilation(mask[rows, columns], iterations=2)
        beside = [region.label for region in self.regions.values() if (region.mask[rows, columns] & around).any()]
        return min(self.neutral, key=beside.count)

    def with_regions(self, changed: Sequence[Region], gone: Sequence[str] = ()) -> "Scene":
        """The scene with regions added or changed, and others gone."""
        kept = {identity: region for identity, region in self.regions.items() if identity not in gone}
        return replace(self, regions=kept | {region.id: region for region in changed})


def recut(scene: Scene, found: Sequence[Region], untouched: Sequence[str], source: str) -> Scene:
    """All that is untouched replaced by what was found, under the same names as far as they go.

    The other regions stay, and what they hold is left out of the new ones.
    """
    scene = scene.with_regions([], untouched)
    if scene.regions:
        free = [replace(region, mask=scene.free(region.mask)) for region in found]
        found = [region for region in free if count(region.mask) >= scene.least]
    new = (scene.identify(f"{source} {number}") for number in range(len(found)))
    names = [*untouched, *new][: len(found)]
    return scene.with_regions([replace(region, id=name) for region, name in zip(found, names, strict=True)])


def selected(scene: Scene, points: Sequence[Point], label: str = "") -> Scene:
    """The segments under the points as one new region, without what the unwanted points lie in."""
    leaves = [int(scene.tree.leaves[point.pixel(scene.tree.size)]) for point in points]
    wanted = [leaf for leaf, point in zip(leaves, points, strict=True) if point.wanted]
    unwanted = [leaf for leaf, point in zip(leaves, points, strict=True) if not point.wanted]
    chosen = select(scene.tree, scene.granularity, wanted, unwanted)
    if not chosen.any():
        raise GranularityError("nothing is selected: click without Alt on what you want")
    region = scene.new_region("", chosen[scene.tree.leaves])
    identity = scene.identify(f"select {points[0].id}")  # the same while more points extend it
    return scene.with_regions([replace(region, id=identity, label=label or region.label)])


def finer(scene: Scene, point: Point) -> Scene:
    """The region under a point in two; the part under the point keeps its name."""
    region = scene.region_at(point)
    halves = split(scene.tree.hierarchy, leaves_within(scene.tree, region.mask), scene.tree.areas, scene.least)
    part = region.mask & halves[0][scene.tree.leaves]
    rest = region.mask & ~part
    here, there = (part, rest) if part[point.pixel(scene.tree.size)] else (rest, part)
    scene = scene.with_regions([replace(region, mask=here)])
    other = scene.new_region(region.id, there)
    label = other.label if region.label in scene.neutral else region.label
    return scene.with_regions([replace(other, label=label)])


def coarser(scene: Scene, point: Point) -> Scene:
    """The region under a point joined with what is nearest to it in the tree.

    Regions that lie in there with half of their pixels become part of it; others keep what is theirs.
    """
    region, areas = scene.region_at(point), scene.tree.areas
    others = [other for other in scene.regions.values() if other.id != region.id]
    leaves = leaves_within(scene.tree, region.mask)
    leaves[scene.tree.leaves[point.pixel(scene.tree.size)]] = True  # of a region smaller than any leaf too
    while True:
        inside = leaves[scene.tree.leaves]
        joined = [other for other in others if 2 * count(other.mask & inside) >= count(other.mask)]
        grown = np.any([region.mask, scene.free(inside), *(other.mask for other in joined)], axis=0)
        if count(grown & ~region.mask) >= scene.least:
            return scene.with_regions([replace(region, mask=grown)], [other.id for other in joined])
        leaves = fold(scene.tree.hierarchy, leaves, areas, scene.least)


def merged(scene: Scene, points: Sequence[Point]) -> Scene:
    """The regions under the points as one, under the name and label of the first that has a label of its own."""
    chosen: dict[str, Region] = {}
    for point in points:
        region = scene.region_at(point)
        scene = scene.with_regions([region])
        if point.wanted:
            chosen[region.id] = region
        else:
            chosen.pop(region.id, None)
    if len(chosen) < 2:
        raise GranularityError("click on another region to merge it with the first")
    named = [region for region in chosen.values() if region.label not in scene.neutral]
    kept = (named or list(chosen.values()))[0]
    union = np.any([region.mask for region in chosen.values()], axis=0)
    return scene.with_regions([replace(kept, mask=union)], [identity for identity in chosen if identity != kept.id])


def resegmented(scene: Scene, place: tuple[slice, slice], inside: CutTree, source: str) -> Scene:
    """What lies in a box segmented anew, by the tree of that part of the picture.

    What runs on beyond the box, in a region that does so too, stays with that region. A new segment takes the label of
    the region that held most of it.
    """
    granularity = Level.AUTO if isinstance(scene.granularity, Segments) else scene.granularity
    labels = np.full(scene.tree.size, -1)
    labels[place] = inside.labels(granularity)
    edge = _inner_edge(scene.tree.size, place)
    box = labels >= 0
    for segment in range(int(labels.max()) + 1):
        mask = labels == segment
        holder = _holder(scene, mask)
        stays = holder is not None and bool((mask & edge).any() and (holder.mask & ~box).any())
        if not stays and count(mask) >= scene.least:
            region = scene.new_region(source, mask)
            label = region.label if holder is None or holder.label in scene.neutral else holder.label
            scene = _cut_out(scene, mask).with_regions([replace(region, label=label)])
    return scene


def _holder(scene: Scene, mask: Mask) -> Region | None:
    """The region that holds half of a mask at least, if one does."""
    largest = max(scene.regions.values(), key=lambda region: count(region.mask & mask), default=None)
    return largest if largest is not None and 2 * count(largest.mask & mask) >= count(mask) else None


def _cut_out(scene: Scene, mask: Mask) -> Scene:
    """The regions without a mask; those of which hardly anything is left go."""
    touched = [region for region in scene.regions.values() if (region.mask & mask).any()]
    left = [replace(region, mask=region.mask & ~mask) for region in touched]
    return scene.with_regions(
        [region for region in left if count(region.mask) >= scene.least],
        [region.id for region in left if count(region.mask) < scene.least],
    )


def _span(inside: Bool[np.ndarray, " n"]) -> slice:
    """From two places before the first that is inside to two after the last."""
    places = np.flatnonzero(inside)
    return slice(max(0, places[0] - 2), places[-1] + 3)


def _inner_edge(size: tuple[int, int], place: tuple[slice, slice]) -> Mask:
    """The outermost pixels of a box, but for those at the picture's own border."""
    box = np.zeros(size, np.bool_)
    box[place] = True
    return box & binary_dilation(~box)
