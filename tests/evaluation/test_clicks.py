import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.builders.ground_truth import save_labels
from tests.builders.scenes import quarter_labels, quarters
from walkcut import cli
from walkcut.errors import SettingsError
from walkcut.evaluation.clicks import (
    ClickCurve,
    ClickObject,
    choose_objects,
    click_curves,
    clicks_line,
    clicks_more,
    simulate_clicks,
    summarise_clicks,
)
from walkcut.evaluation.datasets import read_dataset
from walkcut.interactive.selection import Pixel

TRUTH = np.zeros((9, 20), bool)
TRUTH[2:7, 2:9] = TRUTH[4:7, 14:17] = True


def discs(radius: int):  # type: ignore[no-untyped-def]
    """What marks squares around positive clicks and clears them around negative ones."""

    def answer(positive: Sequence[Pixel], negative: Sequence[Pixel]) -> np.ndarray:
        y, x = np.ogrid[:9, :20]
        near = [
            np.any([(abs(y - row) <= radius) & (abs(x - column) <= radius) for row, column in pixels], axis=0)
            if pixels
            else np.zeros((9, 20), bool)
            for pixels in (positive, negative)
        ]
        return np.asarray(near[0] & ~near[1])

    return answer


def test_clicks_correct_the_largest_wrong_area_until_the_highest_target() -> None:
    clicks: list[tuple[list[Pixel], list[Pixel]]] = []

    def answer(positive: Sequence[Pixel], negative: Sequence[Pixel]) -> np.ndarray:
        clicks.append(([*positive], [*negative]))
        box = np.zeros_like(TRUTH)
        box[2:7, 2:13] = True  # four columns too many
        return [box, box & (np.arange(20) < 9), TRUTH][len(clicks) - 1]

    # 35 + 9 true pixels: 35 of 64, 35 of 44, all. The missing 9 are fewer than the 20 that are too many.
    assert simulate_clicks(answer, TRUTH) == pytest.approx((35 / 64, 35 / 44, 1))
    assert clicks == [([(4, 4)], []), ([(4, 4)], [(3, 10)]), ([(4, 4), (5, 15)], [(3, 10)])]


def test_no_pixel_is_clicked_twice_and_clicking_ends_after_20() -> None:
    seen: list[Pixel] = []

    def answer(positive: Sequence[Pixel], negative: Sequence[Pixel]) -> np.ndarray:
        seen.append(positive[-1])
        return np.zeros_like(TRUTH)

    assert simulate_clicks(answer, TRUTH) == (0,) * 20
    assert len(set(seen)) == 20


def test_clicking_ends_where_every_wrong_pixel_was_clicked() -> None:
    truth = np.zeros((1, 3), bool)
    truth[0, 1] = True
    assert simulate_clicks(lambda positive, negative: np.zeros((1, 3), bool), truth) == (0,)


def test_a_system_that_marks_squares_needs_a_click_for_each() -> None:
    assert simulate_clicks(discs(1), np.array(TRUTH & (np.arange(20) > 12)))[-1] == 1
    assert len(simulate_clicks(discs(2), np.array(TRUTH))) > 2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images: a quarter each (25 %) by the first person, halves (50 %) and a dot (0.1 %) by the second."""
    dot = quarter_labels(48, 64) // 2
    dot[:1, :3] = 2
    for name in ("a", "b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(quarters(48, 64)).save(tmp_path / "images" / f"{name}.png")
        for person, labels in enumerate((quarter_labels(48, 64), dot)):
            save_labels(tmp_path / "labels" / f"{name}.{person}.png", labels.astype(np.uint8))
    return tmp_path


def test_objects_are_of_1_to_40_percent_and_spread_over_images(root: Path) -> None:
    dataset = read_dataset("folder", root)
    objects = choose_objects(dataset, 100)
    assert [(chosen.image, chosen.person) for chosen in objects] == [(0, 0)] * 4 + [(1, 0)] * 4
    assert {chosen.region for chosen in objects} == {0, 1, 2, 3}
    assert [chosen.image for chosen in choose_objects(dataset, 3)] == [0, 0, 1]
    assert choose_objects(dataset, 3) == choose_objects(dataset, 3)


def test_objects_are_of_all_people_in_turn(root: Path) -> None:
    save_labels(root / "labels" / "a.1.png", quarter_labels(48, 64).astype(np.uint8))
    objects = choose_objects(read_dataset("folder", root), 4)
    assert sorted(chosen.person for chosen in objects if chosen.image == 0) == [0, 1]


class Whole:
    """Takes the whole image for the object."""

    name = "whole"

    def open(self, image: np.ndarray):  # type: ignore[no-untyped-def]
        return lambda positive, negative: np.ones(image.shape[:2], bool)


def test_curves_are_those_of_the_objects(root: Path) -> None:
    objects = [ClickObject(0, 0, 1), ClickObject(1, 1, 2)]
    curves = [*click_curves(Whole(), read_dataset("folder", root), objects)]
    assert [(curve.image, curve.ious[0]) for curve in curves] == [(0, 0.25), (1, pytest.approx(3 / 48 / 64))]


QUICK, SLOW = ClickCurve(0, (0.5, 0.82, 0.91)), ClickCurve(1, (0.1,) * 19 + (0.85,))


def test_summaries_average_objects_and_count_failures() -> None:
    summary = summarise_clicks([QUICK, SLOW])
    assert {to: row["mean"] for to, row in summary["noc"].items()} == {"0.80": 11, "0.85": 11.5, "0.90": 11.5}
    assert {to: row["mean"] for to, row in summary["failures"].items()} == {"0.80": 0, "0.85": 0, "0.90": 0.5}
    assert [row["mean"] for row in summary["iou"].values()] == pytest.approx([0.3, 0.505, 0.505, 0.505])
    assert (summary["noc"]["0.80"]["low"], summary["noc"]["0.80"]["high"]) == (2, 20)
    assert clicks_line(summary) == (
        "clicks to IoU: 11.0 [2.0, 20.0] to 0.80, 11.5 [3.0, 20.0] to 0.85, 11.5 [3.0, 20.0] to 0.90; "
        "not reached by 0%, 0%, 50%; IoU 0.300 after 1, 0.505 after 3, 0.505 after 5, 0.505 after 10"
    )


def test_systems_are_compared_object_by_object() -> None:
    more = clicks_more([SLOW, SLOW], [QUICK, SLOW])
    assert [row["mean"] for row in more.values()] == [9, 8.5, 8.5]


def test_the_command_counts_clicks_of_all_systems(root: Path) -> None:
    arguments = ["evaluate", "--dataset", "folder", "--root", str(root), "--clicks", "--objects", "2"]
    result = CliRunner().invoke(cli.main, [*arguments, "--json", str(root / "out.json")])
    assert result.exit_code == 0, result.output
    names = ["walkcut", "grabcut", "random-walker", "geodesic"]
    assert [line.split()[0] for line in result.output.splitlines()[:4]] == names
    assert re.match(r"walkcut +clicks to IoU: 1\.0 \[1\.0, 1\.0\] to 0\.80, ", result.output)
    found = json.loads((root / "out.json").read_text())["clicks"]
    assert list(found["systems"]) == names
    assert len(found["objects"]) == len(found["systems"]["walkcut"]["curves"]) == 2
    assert found["systems"]["grabcut"]["more_than_select"]["0.80"]["mean"] >= 0


def test_a_data_set_with_classes_is_refused(root: Path) -> None:
    for name in ("a", "b"):
        (root / "labels" / f"{name}.0.png").rename(root / "labels" / f"{name}.png")
    (root / "classes.txt").write_text("one\ntwo\nthree\nfour\n")
    with pytest.raises(SettingsError, match="folder has classes: clicks need a data set of partitions, such as bsds"):
        choose_objects(read_dataset("folder", root), 3)


def test_a_data_set_without_objects_is_refused(root: Path) -> None:
    for path in root.glob("labels/*"):
        save_labels(path, np.zeros((48, 64), np.uint8))
    with pytest.raises(SettingsError, match=r"folder holds no region of 1 to 40 % of its image: clicks need one"):
        choose_objects(read_dataset("folder", root), 3)


def test_objects_of_one_image_are_drawn_together() -> None:
    curves = [ClickCurve(0, (1.0,))] * 10 + [ClickCurve(1, (0.1,) * 20)] * 10
    assert summarise_clicks(curves)["noc"]["0.90"] == {"mean": 10.5, "low": 1, "high": 20}
