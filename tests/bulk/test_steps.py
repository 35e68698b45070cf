from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.bulk import CONTROL, QuickSegmenter, make_image, plan_for, quick_segmenter, run_folder, written
from tests.builders.scenes import data_url, png, quarters
from walkcut.bulk.checkpoint import CheckpointEntry, ItemFailure, ItemResult
from walkcut.bulk.formats import LabelStudioFormat
from walkcut.bulk.items import Item
from walkcut.bulk.steps import Plan, ReexportWorker, make_export_worker, make_full_worker
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.images import DecodeLimits, FetchPolicy, ImageLoader
from walkcut.inference.model import InProcessModel
from walkcut.inference.predictor import Predictor
from walkcut.inference.project import ProjectOptions
from walkcut.inference.tree_service import TreeService
from walkcut.storage import TreeCache

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image"><Label value="Region"/>'
    "</BrushLabels></View>"
)


class Broken(QuickSegmenter):
    """Fails in a way that nobody foresaw."""

    def segment(self, image: np.ndarray) -> CutTree:
        raise TypeError("nobody foresaw this")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return run_folder(tmp_path / "out")


def finished(plan: Plan, item: Item, out: Path) -> ItemResult:
    done = make_full_worker(plan, out, quick_segmenter)(item)
    assert isinstance(done, ItemResult)
    return done


def failed(item: Item, **changes: Any) -> ItemFailure:
    failure = make_full_worker(replace(plan_for(), **changes), Path(), quick_segmenter)(item)
    assert isinstance(failure, ItemFailure)
    assert (failure.key, failure.reference) == (item.key, item.reference)
    return failure


def test_a_image_is_labelled_with_the_seconds_of_each_stage(tmp_path: Path, out: Path) -> None:
    done = finished(plan_for(), Item("a", str(make_image(tmp_path / "a.png"))), out)
    assert list(written(out, done)) == ["a.png"]
    assert [each["label"] for each in done.record["segments"]] == ["Region"] * 4
    assert list(done.seconds) == ["read", "decode", "tree", "regions", "encode", "write"]
    assert (done.tree, done.tree_bytes) == ("", 0)


def test_predictions_and_trees_are_those_of_the_backend(tmp_path: Path, out: Path) -> None:
    reference = data_url(png(quarters(24, 32)))
    cache = TreeCache(tmp_path / "trees", 1 << 20)
    options = ProjectOptions()
    plan = plan_for(LabelStudioFormat(CONTROL), options.granularities, tmp_path / "kept")
    predictor = Predictor(
        TreeService(InProcessModel(quick_segmenter(), DecodeLimits()), cache), ImageLoader(FetchPolicy(), None), options
    )
    project = predictor.project_from_config(CONFIG, {})
    plan = replace(plan, project=project, method=quick_segmenter().preset.name)
    (tmp_path / "kept").mkdir()
    done = finished(plan, Item("a", reference, {"image": reference}), out)
    versions = [predictor.version(project, granularity) for granularity in options.granularities]
    assert [each["model_version"] for each in done.record["predictions"]] == versions
    predictor.get_tree(reference, 0)
    kept = cache.get(done.tree)
    assert kept is not None
    (file,) = (tmp_path / "kept").iterdir()
    assert file.read_bytes() == kept.to_bytes()
    assert done.tree_bytes == len(kept.to_bytes())


def test_a_tree_that_is_known_is_not_grown_again(tmp_path: Path, out: Path) -> None:
    plan, item = plan_for(trees=tmp_path), Item("a", str(make_image(tmp_path / "a.png")))
    first = finished(plan, item, out)
    assert first.tree_bytes > 0
    again = make_full_worker(plan, out, lambda: Broken(quick_segmenter().backbone, quick_segmenter().preset))(item)
    assert isinstance(again, ItemResult)
    assert (again.record, again.tree, again.tree_bytes) == (first.record, first.tree, 0)
    assert written(out, again) == written(out, first)
    assert list(again.seconds) == ["read", "regions", "encode", "write"]


def test_a_damaged_tree_is_grown_anew(tmp_path: Path, out: Path) -> None:
    plan, item = plan_for(trees=tmp_path), Item("a", str(make_image(tmp_path / "a.png")))
    TreeCache(tmp_path, 1 << 20).put_bytes(finished(plan, item, out).tree, b"rubbish")
    assert finished(plan, item, out).tree_bytes > 0


def test_a_tree_that_cannot_be_kept_is_no_failure(tmp_path: Path, out: Path, caplog: pytest.LogCaptureFixture) -> None:
    done = finished(plan_for(trees=tmp_path / "gone"), Item("a", str(make_image(tmp_path / "a.png"))), out)
    assert done.tree_bytes == 0
    assert "was not kept" in caplog.text


def test_files_that_cannot_be_written_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"gone cannot be written to .*see that there is room.*goes on from here"):
        finished(plan_for(), Item("a", str(make_image(tmp_path / "a.png"))), tmp_path / "gone")


def test_the_parts_of_the_work_may_be_in_several_processes(tmp_path: Path, out: Path) -> None:
    plan, item = plan_for(trees=tmp_path), Item("a", str(make_image(tmp_path / "a.png")))
    labeller = make_full_worker(plan, out, quick_segmenter)
    grown = labeller.growing(labeller.prefetch(item))
    assert not isinstance(grown, ItemFailure)
    done = make_export_worker(plan, out).run(grown.packed())
    assert isinstance(done, ItemResult)
    (kept,) = tmp_path.glob("*.tree.npz")
    content = kept.read_bytes()
    kept.unlink()
    whole = finished(plan, item, out)
    assert (done.record, done.tree, done.tree_bytes) == (whole.record, whole.tree, whole.tree_bytes)
    assert written(out, done) == written(out, whole)
    assert kept.read_bytes() == content


@pytest.mark.parametrize(
    ("reference", "stage", "reason"),
    [
        ("/nowhere/a.jpg", "read", "'/nowhere/a.jpg' cannot be read (No such file or directory): see that it is there"),
        ("/", "read", "/ is no file: name an image"),
        ("memory://nowhere/a.jpg", "read", "cannot be read"),
        ("data:image/png;base64,!!", "read", "base64 is broken"),
        ("http://127.0.0.1:9/a.jpg", "read", "cannot fetch the image"),
        (data_url(b"rubbish!"), "decode", "are no image that walkcut reads"),
    ],
)
def test_a_image_that_cannot_be_had_is_a_failure(reference: str, stage: str, reason: str) -> None:
    failure = failed(Item("a", reference))
    assert failure.stage == stage
    assert reason in failure.reason


def test_limits_hold_for_files(tmp_path: Path) -> None:
    item = Item("a", str(make_image(tmp_path / "a.png")))
    assert "more than 99 bytes" in failed(item, policy=FetchPolicy(max_bytes=99)).reason
    assert "more than 99. Scale" in failed(item, limits=DecodeLimits(max_pixels=99)).reason


def test_a_defect_costs_its_image_alone(tmp_path: Path, out: Path) -> None:
    labeller = make_full_worker(plan_for(), out, lambda: Broken(quick_segmenter().backbone, quick_segmenter().preset))
    failure = labeller(Item("a", str(make_image(tmp_path / "a.png"))))
    assert isinstance(failure, ItemFailure)
    assert failure.reason == "a defect of walkcut, please report it: TypeError: nobody foresaw this"
    assert labeller(failure) is failure


def test_a_image_gets_the_labels_of_its_target(tmp_path: Path, out: Path) -> None:
    project = plan_for().project
    controls = (*project.controls, replace(project.controls[0], generic_labels=("Other",)))
    plan = replace(plan_for(), project=replace(project, controls=controls))
    for place, label in enumerate(("Region", "Other")):
        done = finished(plan, Item("a", str(make_image(tmp_path / "a.png")), control=place), out)
        assert {each["label"] for each in done.record["segments"]} == {label}


def test_a_tree_is_cut_again_without_its_image(tmp_path: Path, out: Path) -> None:
    path = make_image(tmp_path / "a.png")
    first = finished(plan_for(trees=tmp_path), Item("a", str(path)), out)
    path.unlink()
    recutter = ReexportWorker(plan_for(granularities=(Segments(2),), trees=tmp_path), tmp_path, out)
    entry = CheckpointEntry(first.item, first.tree, (), {})
    done = recutter.run(recutter.prefetch(entry))
    assert isinstance(done, ItemResult)
    assert len(done.record["segments"]) == 2
    assert done.tree == first.tree
    lost = recutter.prefetch(replace(entry, tree="lost"))
    assert isinstance(lost, ItemFailure)
    assert "its cut tree is not there any more" in lost.reason


def test_levels_of_the_quick_segmenter_differ() -> None:
    assert [quick_segmenter().segment(quarters(24, 32)).segment_count(level) for level in Level] == [4, 2, 3, 4]
