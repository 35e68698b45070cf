"""The classical methods find obvious objects from their clicks, and the seeds are where they should be."""

import sys

import numpy as np
import pytest

from tests.builders.scenes import quarter_labels, quarters
from walkcut import load_segmenter
from walkcut.errors import SettingsError
from walkcut.evaluation.click_systems import click_systems, grabcut, seed_discs, with_background
from walkcut.evaluation.clicks import ClickSystem
from walkcut.hierarchy.granularity import Level
from walkcut.interactive.selection import select_mask

SEGMENTER = load_segmenter("classical")
SYSTEMS = {system.name: system for system in click_systems(SEGMENTER)}
IMAGE = quarters(48, 64)
all_systems = pytest.mark.parametrize("system", SYSTEMS.values(), ids=SYSTEMS)


def test_seeds_are_discs_and_each_click_keeps_its_kind() -> None:
    seeds = seed_discs((5, 200), [(2, 10), (2, 100)], [(2, 101)])  # the radius is two pixels
    assert np.flatnonzero(seeds[2] == 1).tolist() == [8, 9, 10, 11, 12, 98, 100]
    assert np.flatnonzero(seeds[2] == -1).tolist() == [99, 101, 102, 103]
    assert np.flatnonzero(seeds[0]).tolist() == [10, 100, 101]


def test_without_negative_clicks_the_free_border_is_background() -> None:
    seeds = with_background(seed_discs((4, 6), [(0, 1)], []))
    assert seeds.tolist() == [[1, 1, 1, 1, -1, -1], [1, 1, 1, 0, 0, -1], [-1, 1, 0, 0, 0, -1], [-1] * 6]
    negative = seed_discs((4, 6), [(1, 1)], [(2, 2)])
    assert with_background(negative) is negative


@all_systems
def test_an_obvious_object_is_found_by_a_click_of_each_kind(system: ClickSystem) -> None:
    answer = system.open(IMAGE)
    found = answer([(12, 16)], [(12, 48), (36, 16), (36, 48)])
    truth = quarter_labels(48, 64) == 0
    assert np.count_nonzero(found & truth) / np.count_nonzero(found | truth) > 0.9


@all_systems
def test_one_click_is_answered_and_always_the_same(system: ClickSystem) -> None:
    first, again = (system.open(IMAGE)([(12, 16)], []) for _ in range(2))
    assert (first.shape, first.dtype, first[12, 16]) == ((48, 64), np.bool_, True)
    assert np.array_equal(first, again)


def test_select_is_the_products_own() -> None:
    image = quarters(160, 200)
    clicks = [(20, 20), (100, 16)], [(20, 180), (110, 60)]  # two in one leaf
    expected = select_mask(
        SEGMENTER.segment(image), Level.AUTO, *clicks, lambda crop: SEGMENTER.segment(np.ascontiguousarray(image[crop]))
    )
    assert np.array_equal(SYSTEMS["walkcut"].open(image)(*clicks), expected)


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(SettingsError, match=r"cv2 is not installed: pip install 'walkcut\[evaluation\]'"):
        grabcut(IMAGE)


def test_masks_of_images_scaled_down_have_the_images_size() -> None:
    found = SYSTEMS["grabcut"].open(quarters(200, 300))([(50, 75)], [(50, 225), (150, 75), (150, 225)])
    assert np.array_equal(found, quarter_labels(200, 300) == 0)
