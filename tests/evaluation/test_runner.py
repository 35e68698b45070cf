"""Runs: each image is scored once, even if an earlier run was interrupted."""

from pathlib import Path

import numpy as np
import pytest

from tests.builders.evaluation import ONE, PIXELS, QUARTERS, SIZE, FixedSystem, quarter_dataset
from tests.builders.ground_truth import save_labels
from walkcut.backbones import load_backbone
from walkcut.errors import SettingsError
from walkcut.evaluation.protocols import PROTOCOLS
from walkcut.evaluation.runner import Run
from walkcut.evaluation.summary import at_segments, summarise
from walkcut.evaluation.systems import System, TreeSystem, baseline_systems
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.segmentation.methods.flat import KMeans
from walkcut.segmentation.presets import Preset
from walkcut.segmentation.segmenter import Segmenter, load_segmenter


def summary(root: Path, system: System, *, classes: bool = False) -> dict:
    run = Run(system, quarter_dataset(root, classes=classes), PROTOCOLS["native"], frozenset({"0", "1"}))
    return summarise(run, list(run.results()))


@pytest.mark.parametrize("classes", [False, True])
def test_a_perfect_answer_scores_1_everywhere(tmp_path: Path, classes: bool) -> None:
    found = summary(tmp_path, FixedSystem((QUARTERS,)), classes=classes)
    scores = ["covering_ods", "covering_ois", "rand_ods", "accuracy", "f1", "miou_hungarian", "miou_oracle"]
    assert [found[name] for name in scores] == [1] * 7
    assert found["variation_ods"] == found["variation_ois"] == 0
    assert found["per_image"]["miou"] == 1


def test_the_boundary_of_a_perfect_answer_is_perfect(tmp_path: Path) -> None:
    found = summary(tmp_path, FixedSystem())
    assert found["boundary_f_ods"] == found["boundary_f_ois"] == 1


@pytest.mark.parametrize("classes", [False, True])
def test_one_segment_scores_what_a_quarter_is_worth(tmp_path: Path, classes: bool) -> None:
    found = summary(tmp_path, FixedSystem((ONE,)), classes=classes)
    assert found["covering_ods"] == pytest.approx(1 / 4)
    assert found["accuracy"] == pytest.approx(1 / 4)
    assert found["miou_hungarian"] == pytest.approx(1 / 4 / 4)
    assert found["f1"] == pytest.approx(2 / 5 / 4)
    assert found["variation_ods"] == pytest.approx(2)


def test_a_segment_per_pixel_is_worth_nothing_until_an_oracle_merges_it(tmp_path: Path) -> None:
    found = summary(tmp_path, FixedSystem((PIXELS,)))
    assert found["covering_ods"] == pytest.approx(1 / 90)
    assert found["miou_hungarian"] == pytest.approx(1 / 90)
    assert found["miou_oracle"] == 1


def test_the_best_setting_is_reported_and_all_are_listed(tmp_path: Path) -> None:
    found = summary(tmp_path, FixedSystem())
    assert found["ods_setting"] == "1"
    assert [row["segments"] for row in found["settings"]] == [1, 4, 360]
    assert [row["covering"] for row in found["settings"]] == pytest.approx([1 / 4, 1, 1 / 90])


def test_counts_are_added_up_before_they_are_divided(tmp_path: Path) -> None:
    images = quarter_dataset(tmp_path, classes=True, images=2)
    save_labels(tmp_path / "labels" / "1.png", np.full(SIZE, 4, np.uint8))
    run = Run(FixedSystem((QUARTERS,)), images, PROTOCOLS["native"])
    found = summarise(run, list(run.results()))
    assert found["accuracy"] == pytest.approx((1 + 1 / 4) / 2)
    # In the second image three extra segments are matched to absent classes.
    assert found["miou_hungarian"] == pytest.approx(np.mean([1 / 2] * 3 + [1] + [1 / 4]))
    assert found["per_image"]["miou"] == pytest.approx((1 + 1 / 4 / 4) / 2)


def test_an_interrupted_run_is_resumed(tmp_path: Path) -> None:
    def interrupt(system: FixedSystem = FixedSystem()) -> None:
        if len(system.calls) == 2:
            raise KeyboardInterrupt

    interrupted = FixedSystem()
    interrupted = FixedSystem(calls=interrupted.calls, hook=lambda: interrupt(interrupted))
    images, record = quarter_dataset(tmp_path), tmp_path / "deep" / "record.jsonl"
    with pytest.raises(KeyboardInterrupt):
        list(Run(interrupted, images, PROTOCOLS["native"]).results(record))
    with record.open("a") as file:
        file.write('{"name": "2", "seco')
    later = FixedSystem()
    results = list(Run(later, images, PROTOCOLS["native"]).results(record))
    assert [result.name for result in results] == ["0", "1", "2"]
    assert (len(interrupted.calls), len(later.calls)) == (2, 1)
    assert [result.scores for result in results] == [results[0].scores] * 3
    again = list(Run(later, images, PROTOCOLS["native"]).results(record))
    assert again == results
    assert len(later.calls) == 1


def test_the_record_of_another_run_is_refused(tmp_path: Path) -> None:
    images, record = quarter_dataset(tmp_path), tmp_path / "record.jsonl"
    list(Run(FixedSystem(), images, PROTOCOLS["native"]).results(record))
    before = record.read_text()
    with pytest.raises(SettingsError, match=r"record.jsonl holds the results of another run: delete it, or choose"):
        list(Run(FixedSystem(version="2"), images, PROTOCOLS["native"]).results(record))
    assert record.read_text() == before


def test_a_file_that_is_no_record_is_refused(tmp_path: Path) -> None:
    record = tmp_path / "notes.txt"
    record.write_text("my notes\n")
    with pytest.raises(SettingsError, match=r"notes.txt holds the results of another run"):
        list(Run(FixedSystem(), quarter_dataset(tmp_path), PROTOCOLS["native"]).results(record))
    assert record.read_text() == "my notes\n"


def test_counts_and_boundaries_come_back_from_a_record(tmp_path: Path) -> None:
    images, record = quarter_dataset(tmp_path, classes=True), tmp_path / "record.jsonl"
    run = Run(FixedSystem(), images, PROTOCOLS["native"], frozenset({"1"}))
    assert summarise(run, list(run.results(record))) == summarise(run, list(run.results(record)))


def test_systems_get_the_number_of_true_segments(tmp_path: Path) -> None:
    system = FixedSystem()
    list(Run(system, quarter_dataset(tmp_path), PROTOCOLS["native"]).results())
    assert system.calls == [4] * 3


def test_a_tree_is_a_system_at_its_granularities() -> None:
    segmenter = Segmenter(load_backbone("classical"), Preset("s", KMeans(clusters=None)))
    system = TreeSystem(segmenter, (Level.AUTO, Segments(2)))
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    auto, two = system.segment(image, 5)
    assert isinstance(system, System)
    assert system.settings == ("auto", "2")
    assert (len(np.unique(auto)), len(np.unique(two))) == (5, 2)


def test_the_papers_baselines_run_on_the_same_model() -> None:
    systems = baseline_systems(load_segmenter("classical", "diffseg"))
    names = ["diffseg-table1-kmeans-c", "diffseg-table1-dbscan", "tokencut", "diffcut-table1-maskcut"]
    assert [system.name for system in systems] == names
    for system in systems:
        (labels,) = system.segment(np.zeros((32, 32, 3), np.uint8), 2)
        assert labels.shape == (32, 32)


def test_scores_at_a_number_of_segments_lie_between_those_of_settings() -> None:
    rows = [
        {"setting": f"tau={segments}", "segments": segments, "covering": value, "miou": value, "miou_oracle": 0}
        for segments, value in ((16, 0.8), (4, 0.4), (1, 0.0))
    ]
    another = {**rows[0], "setting": "8", "segments": 8, "covering": 0.0}
    for segments, expected in ((4, 0.4), (8, 0.6), (2, 0.2), (99, 0.8)):
        found = at_segments({"settings": [*rows, another]}, segments)
        assert found == {"covering": pytest.approx(expected), "miou": pytest.approx(expected), "miou_oracle": 0}
    assert at_segments({"settings": [another]}, 5)["miou"] == 0.8
