from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.bulk import (
    IMAGE_TAG,
    QuickSegmenter,
    make_plan,
    make_run_dir,
    quick_segmenter,
    staged_contents,
    write_image,
)
from tests.builders.label_config import make_image_tag
from tests.builders.scenes import data_url, png, quarters
from walkcut.bulk.formats import LabelStudioFormat
from walkcut.bulk.items import CheckpointEntry, Item, ItemFailure, ItemResult
from walkcut.bulk.plan import Plan
from walkcut.bulk.workers import (
    make_export_worker,
    make_full_worker,
    make_load_worker,
    make_reexport_worker,
    make_segment_worker,
)
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.images import DecodeLimits, FetchPolicy, ImageLoader
from walkcut.inference.model import InProcessModel
from walkcut.inference.predictor import Predictor
from walkcut.inference.project import ProjectOptions
from walkcut.inference.tree_service import TreeService
from walkcut.labelstudio.tasks import Task
from walkcut.storage import TreeCache, write_tree

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image"><Label value="Region"/>'
    "</BrushLabels></View>"
)


class Broken(QuickSegmenter):
    """Fails with an unexpected error."""

    def segment(self, image: np.ndarray) -> CutTree:
        raise TypeError("unexpected")


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_run_dir(tmp_path / "out")


def process(plan: Plan, item: Item, run_dir: Path) -> ItemResult:
    result = make_full_worker(plan, run_dir, quick_segmenter)(item)
    assert isinstance(result, ItemResult)
    return result


def process_failing(item: Item, **changes: Any) -> ItemFailure:
    failure = make_full_worker(replace(make_plan(), **changes), Path(), quick_segmenter)(item)
    assert isinstance(failure, ItemFailure)
    assert (failure.key, failure.reference) == (item.key, item.reference)
    return failure


def test_an_image_is_processed_with_the_seconds_of_each_stage(tmp_path: Path, run_dir: Path) -> None:
    result = process(make_plan(), Item("a", str(write_image(tmp_path / "a.png"))), run_dir)
    assert list(staged_contents(run_dir, result)) == ["a.png"]
    assert [segment["label"] for segment in result.record["segments"]] == ["Region"] * 4
    assert list(result.seconds) == ["read", "decode", "tree", "regions", "encode", "write"]
    assert (result.tree_key, result.tree_bytes) == ("", 0)


def test_predictions_and_trees_are_those_of_the_backend(tmp_path: Path, run_dir: Path) -> None:
    reference = data_url(png(quarters(24, 32)))
    cache = TreeCache(tmp_path / "trees", 1 << 20)
    options = ProjectOptions()
    plan = make_plan(LabelStudioFormat(IMAGE_TAG), options.granularities, tmp_path / "bulk_trees")
    predictor = Predictor(
        TreeService(InProcessModel(quick_segmenter(), DecodeLimits()), cache), ImageLoader(FetchPolicy(), None), options
    )
    project = predictor.project_from_config(CONFIG, {})
    plan = replace(plan, project=project, preset_name=quick_segmenter().preset.name)
    (tmp_path / "bulk_trees").mkdir()
    result = process(plan, Item("a", reference, {"image": reference}), run_dir)
    expected = [prediction.as_json() for prediction in predictor.predict(Task(0, {"image": reference}), project)]
    exported = result.record["predictions"]
    assert len(exported) > 1
    assert exported == [{key: prediction[key] for key in exported[0]} for prediction in expected]
    tree = cache.get(result.tree_key)
    assert tree is not None
    (file,) = (tmp_path / "bulk_trees").iterdir()
    assert file.read_bytes() == tree.to_bytes()
    assert result.tree_bytes == len(tree.to_bytes())


def test_an_image_with_a_cached_tree_is_not_segmented(tmp_path: Path, run_dir: Path) -> None:
    plan, item = make_plan(tree_dir=tmp_path), Item("a", str(write_image(tmp_path / "a.png")))
    first = process(plan, item, run_dir)
    assert first.tree_bytes > 0
    again = make_full_worker(plan, run_dir, lambda: Broken(quick_segmenter().backbone, quick_segmenter().preset))(item)
    assert isinstance(again, ItemResult)
    assert (again.record, again.tree_key, again.tree_bytes) == (first.record, first.tree_key, 0)
    assert staged_contents(run_dir, again) == staged_contents(run_dir, first)
    assert list(again.seconds) == ["read", "regions", "encode", "write"]


def test_an_image_with_a_damaged_tree_is_segmented_again(tmp_path: Path, run_dir: Path) -> None:
    plan, item = make_plan(tree_dir=tmp_path), Item("a", str(write_image(tmp_path / "a.png")))
    write_tree(tmp_path, process(plan, item, run_dir).tree_key, b"rubbish")
    assert process(plan, item, run_dir).tree_bytes > 0


def test_a_tree_that_cannot_be_cached_is_not_a_failure(
    tmp_path: Path, run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "trees").symlink_to(tmp_path / "missing")
    result = process(make_plan(tree_dir=tmp_path / "trees"), Item("a", str(write_image(tmp_path / "a.png"))), run_dir)
    assert result.tree_bytes == 0
    assert "was not cached" in caplog.text


def test_files_that_cannot_be_written_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"missing cannot be written to .*free disk space.*continues from here"):
        process(make_plan(), Item("a", str(write_image(tmp_path / "a.png"))), tmp_path / "missing")


def test_steps_may_run_in_several_processes(tmp_path: Path, run_dir: Path) -> None:
    plan, item = make_plan(tree_dir=tmp_path), Item("a", str(write_image(tmp_path / "a.png")))
    result = make_export_worker(plan, run_dir)(make_segment_worker(quick_segmenter)(make_load_worker(plan)(item)))
    assert isinstance(result, ItemResult)
    (tree_file,) = tmp_path.glob("*.tree.npz")
    content = tree_file.read_bytes()
    tree_file.unlink()
    whole = process(plan, item, run_dir)
    assert (result.record, result.tree_key, result.tree_bytes) == (whole.record, whole.tree_key, whole.tree_bytes)
    assert staged_contents(run_dir, result) == staged_contents(run_dir, whole)
    assert tree_file.read_bytes() == content


@pytest.mark.parametrize(
    ("reference", "stage", "reason"),
    [
        ("/nowhere/a.jpg", "read", "'/nowhere/a.jpg' cannot be read (No such file or directory): check that it exists"),
        ("/", "read", "/ is not a file: give the path of an image"),
        ("memory://nowhere/a.jpg", "read", "cannot be read"),
        ("data:image/png;base64,!!", "read", "base64 is broken"),
        ("http://127.0.0.1:9/a.jpg", "read", "cannot fetch the image"),
        (data_url(b"rubbish!"), "decode", "are not in a supported image format"),
    ],
)
def test_an_image_that_cannot_be_loaded_is_a_failure(reference: str, stage: str, reason: str) -> None:
    failure = process_failing(Item("a", reference))
    assert failure.stage == stage
    assert reason in failure.reason


def test_limits_apply_to_files(tmp_path: Path) -> None:
    item = Item("a", str(write_image(tmp_path / "a.png")))
    assert "more than 99 bytes" in process_failing(item, policy=FetchPolicy(max_bytes=99)).reason
    assert "more than 99. Scale" in process_failing(item, limits=DecodeLimits(max_pixels=99)).reason


def test_an_internal_error_fails_its_image_only(tmp_path: Path, run_dir: Path) -> None:
    worker = make_full_worker(
        make_plan(), run_dir, lambda: Broken(quick_segmenter().backbone, quick_segmenter().preset)
    )
    failure = worker(Item("a", str(write_image(tmp_path / "a.png"))))
    assert isinstance(failure, ItemFailure)
    assert failure.reason == "a bug in walkcut: please report it (TypeError: unexpected)"
    assert worker(failure) is failure


def test_an_image_gets_the_labels_of_its_tag(tmp_path: Path, run_dir: Path) -> None:
    project = make_plan().project
    image_tags = (*project.image_tags, make_image_tag(neutral=("Other",), name="back"))
    plan = replace(make_plan(), project=replace(project, image_tags=image_tags))
    for index, label in enumerate(("Region", "Other")):
        result = process(plan, Item("a", str(write_image(tmp_path / "a.png")), image_index=index), run_dir)
        assert {segment["label"] for segment in result.record["segments"]} == {label}


def test_a_tree_is_exported_again_without_its_image(tmp_path: Path, run_dir: Path) -> None:
    path = write_image(tmp_path / "a.png")
    first = process(make_plan(tree_dir=tmp_path), Item("a", str(path)), run_dir)
    path.unlink()
    reexport = make_reexport_worker(make_plan(granularities=(Segments(2),), tree_dir=tmp_path), tmp_path, run_dir)
    entry = CheckpointEntry(first.item, first.tree_key)
    result = reexport.run(reexport.prefetch(entry))
    assert isinstance(result, ItemResult)
    assert len(result.record["segments"]) == 2
    assert result.tree_key == first.tree_key
    missing = reexport.prefetch(replace(entry, tree_key="missing"))
    assert isinstance(missing, ItemFailure)
    assert "its cut tree is not in the cache" in missing.reason


def test_levels_of_the_quick_segmenter_differ() -> None:
    assert [quick_segmenter().segment(quarters(24, 32)).segment_count(level) for level in Level] == [4, 2, 3, 4]
