"""Interactive segmentation by clicks: how many a simulated annotator needs for an object."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, zip_longest
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from numpy.typing import ArrayLike

from walkcut.errors import SettingsError
from walkcut.evaluation.datasets import Dataset
from walkcut.evaluation.intervals import bootstrap_intervals
from walkcut.evaluation.simulated_annotator import interior_point, largest_part
from walkcut.interactive.selection import Pixel

TARGETS: Final = (0.80, 0.85, 0.90)  # of the intersection over union
MAX_CLICKS: Final = 20
_REPORTED_CLICKS: Final = (1, 3, 5, 10)
_AREAS: Final = (0.01, 0.40)  # of an object, as fractions of the image

Mask = Bool[np.ndarray, "y x"]
Answer = Callable[[Sequence[Pixel], Sequence[Pixel]], Mask]  # to positive and negative clicks, in order


@runtime_checkable
class ClickSystem(Protocol):
    """A way to segment an object by clicks."""

    @property
    def name(self) -> str:
        """The name in tables."""

    def open(self, image: UInt8[np.ndarray, "y x 3"]) -> Answer:
        """Return what answers clicks on an image."""


@dataclass(frozen=True)
class ClickObject:
    """An object to click on: a region of one person's partition of an image; both are counted from 0."""

    image: int
    person: int
    region: int


@dataclass(frozen=True)
class ClickCurve:
    """The IoU of an object after each click; clicking ends at the highest target or after 20 clicks."""

    image: int
    ious: tuple[float, ...]

    def clicks_to(self, target: float) -> int | None:
        """Return the number of clicks that reach a target; `None` if they never do."""
        return next((n for n, iou in enumerate(self.ious, 1) if iou >= target), None)


def choose_objects(dataset: Dataset, count: int) -> list[ClickObject]:
    """Choose at most `count` objects of 1 to 40 % of their image, as many in each image as possible, always the same.

    An image's objects come from all people in turn. Raises `SettingsError` where there are none, and for classes.
    """
    if not dataset.partitions:
        raise SettingsError(f"{dataset.name} has classes: clicks need a data set of partitions, such as bsds500")
    candidates = [_candidates(image, example.name, example.read()[1]) for image, example in enumerate(dataset.examples)]
    objects = _in_turn(candidates)[:count]
    if not objects:
        raise SettingsError(f"{dataset.name} holds no region of 1 to 40 % of its image: clicks need one")
    return sorted(objects, key=lambda chosen: chosen.image)


def _candidates(image: int, name: str, truths: Sequence[Int64[np.ndarray, "y x"]]) -> list[ClickObject]:
    """Return the objects of an image, of all people in turn, each person's in an order drawn by the image's name."""
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    people = []
    for person, truth in enumerate(truths):
        fractions = np.bincount(truth[truth >= 0]) / truth.size
        regions = draw.permutation(np.flatnonzero((fractions >= _AREAS[0]) & (fractions <= _AREAS[1])))
        people.append([ClickObject(image, person, region) for region in regions.tolist()])
    return _in_turn(people)


def _in_turn(groups: Sequence[Sequence[ClickObject]]) -> list[ClickObject]:
    """Return the first of each group, then the second of each, and so on."""
    return [chosen for chosen in chain.from_iterable(zip_longest(*groups)) if chosen is not None]


def click_curves(system: ClickSystem, dataset: Dataset, objects: Sequence[ClickObject]) -> Iterator[ClickCurve]:
    """Yield the curve of each object, in order; an image is opened once for consecutive objects."""
    for image, chosen in groupby(objects, key=lambda one: one.image):
        pixels, truths = dataset.examples[image].read()
        answer = system.open(pixels)
        for one in chosen:
            yield ClickCurve(image, simulate_clicks(answer, truths[one.person] == one.region))


def simulate_clicks(answer: Answer, truth: Mask) -> tuple[float, ...]:
    """Return the IoU after each click of an annotator who always corrects the largest wrong area.

    The click lies at the most interior point of the largest connected part that is missing (positive) or too much
    (negative), on no pixel twice.
    """
    result, clicked = np.zeros_like(truth), np.zeros_like(truth)
    positive: list[Pixel] = []
    negative: list[Pixel] = []
    ious: list[float] = []
    while len(ious) < MAX_CLICKS and max(ious, default=0) < max(TARGETS):
        missing, surplus = (largest_part(wrong & ~clicked) for wrong in (truth & ~result, result & ~truth))
        clicks, area = max((positive, missing), (negative, surplus), key=lambda kind: np.count_nonzero(kind[1]))
        if not area.any():
            break
        clicks.append(interior_point(area))
        clicked[clicks[-1]] = True
        result = answer(positive, negative)
        ious.append(np.count_nonzero(result & truth) / np.count_nonzero(result | truth))
    return tuple(ious)


def summarise_clicks(curves: Sequence[ClickCurve]) -> dict[str, Any]:
    """Return the means over all objects with 95 % intervals, ready for JSON.

    `noc` is the number of clicks to a target; targets that are not reached count with 20 clicks, and in `failures`,
    which are fractions. An object keeps the IoU of its last click.
    """
    after = {str(n): [curve.ious[:n][-1] for curve in curves] for n in _REPORTED_CLICKS}
    failed = {_name(target): [float(curve.clicks_to(target) is None) for curve in curves] for target in TARGETS}
    noc = {_name(target): _clicks(curves, target) for target in TARGETS}
    return {
        kind: {key: _mean(values, curves) for key, values in rows.items()}
        for kind, rows in (("noc", noc), ("failures", failed), ("iou", after))
    } | {"curves": [curve.ious for curve in curves]}


def clicks_more(curves: Sequence[ClickCurve], than: Sequence[ClickCurve]) -> dict[str, dict[str, float]]:
    """Return for each target how many more clicks the same objects take than with another system, with intervals."""
    return {
        _name(target): _mean(np.subtract(_clicks(curves, target), _clicks(than, target)), curves) for target in TARGETS
    }


def clicks_line(summary: Mapping[str, Any]) -> str:
    """Return the main figures of a summary in words."""
    clicks = (f"{row['mean']:.1f} [{row['low']:.1f}, {row['high']:.1f}] to {to}" for to, row in summary["noc"].items())
    ious = (f"{row['mean']:.3f} after {n}" for n, row in summary["iou"].items())
    failures = (f"{row['mean']:.0%}" for row in summary["failures"].values())
    return f"clicks to IoU: {', '.join(clicks)}; not reached by {', '.join(failures)}; IoU {', '.join(ious)}"


def _name(target: float) -> str:
    return f"{target:.2f}"


def _clicks(curves: Sequence[ClickCurve], target: float) -> list[float]:
    return [float(curve.clicks_to(target) or MAX_CLICKS) for curve in curves]


def _mean(values: ArrayLike, curves: Sequence[ClickCurve]) -> dict[str, float]:
    """Return the mean of a value of each curve, and its interval: objects of one image depend on each other."""
    means = np.asarray(values, np.float64)
    _, images = np.unique([curve.image for curve in curves], return_inverse=True)
    sums, objects = np.bincount(images, means), np.bincount(images)
    ((low, high),) = bootstrap_intervals(lambda drawn: [sums[drawn].sum() / objects[drawn].sum()], len(objects))
    return {"mean": float(means.mean()), "low": low, "high": high}
