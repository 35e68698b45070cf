from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.bulk.stand_ins import TARGET, QuickSegmenter, picture, plan_for, quick_segmenter
from tests.scenes import data_url, png, quarters
from walkcut.annotator import Annotator, Options
from walkcut.bulk.formats import LabelStudioFormat
from walkcut.bulk.items import Item
from walkcut.bulk.ledger import Done, Entry, Failure
from walkcut.bulk.work import Plan, Recutter, make_finisher, make_labeller
from walkcut.errors import SettingsError
from walkcut.images import DecodeLimits, FetchPolicy, PictureSource
from walkcut.segmentation.granularity import Level, Segments
from walkcut.segmentation.tree import CutTree
from walkcut.store import TreeCache

CONFIG = (
    '<View><Image name="image" value="$image"/><BrushLabels name="brush" toName="image"><Label value="Region"/>'
    "</BrushLabels></View>"
)


class Broken(QuickSegmenter):
    """Fails in a way that nobody foresaw."""

    def tree(self, image: np.ndarray) -> CutTree:
        raise TypeError("nobody foresaw this")


def finished(plan: Plan, item: Item) -> Done:
    done = make_labeller(plan, quick_segmenter)(item)
    assert isinstance(done, Done)
    return done


def failed(item: Item, **changes: Any) -> Failure:
    failure = make_labeller(replace(plan_for(), **changes), quick_segmenter)(item)
    assert isinstance(failure, Failure)
    assert (failure.key, failure.reference) == (item.key, item.reference)
    return failure


def test_a_picture_is_labelled_with_the_seconds_of_each_stage(tmp_path: Path) -> None:
    done = finished(plan_for(), Item("a", str(picture(tmp_path / "a.png"))))
    assert list(done.output.files) == ["a.png"]
    assert [each["label"] for each in done.output.record["segments"]] == ["Region"] * 4
    assert list(done.seconds) == ["read", "decode", "tree", "regions", "encode"]
    assert (done.tree, done.tree_file) == ("", None)


def test_predictions_and_trees_are_those_of_the_backend(tmp_path: Path) -> None:
    reference = data_url(png(quarters(24, 32)))
    cache = TreeCache(tmp_path, 1 << 20)
    options = Options()
    plan = plan_for(LabelStudioFormat(TARGET), options.granularities, tmp_path)
    annotator = Annotator(quick_segmenter(), PictureSource(FetchPolicy(), None), DecodeLimits(), cache, options)
    project = annotator.set_up(CONFIG, {})
    plan = replace(plan, project=project, method=quick_segmenter().recipe.name)
    done = finished(plan, Item("a", reference, {"image": reference}))
    versions = [annotator.version(project, granularity) for granularity in options.granularities]
    assert [each["model_version"] for each in done.output.record["predictions"]] == versions
    annotator.tree(reference, 0)
    kept = cache.get(done.tree)
    assert kept is not None
    assert done.tree_file == kept.to_bytes()


def test_a_tree_that_is_known_is_not_grown_again(tmp_path: Path) -> None:
    plan, item = plan_for(trees=tmp_path), Item("a", str(picture(tmp_path / "a.png")))
    first = finished(plan, item)
    assert first.tree_file is not None
    TreeCache(tmp_path, 1 << 20).put_bytes(first.tree, first.tree_file)
    again = make_labeller(plan, lambda: Broken(quick_segmenter().extractor, quick_segmenter().recipe))(item)
    assert isinstance(again, Done)
    assert (again.output, again.tree, again.tree_file) == (first.output, first.tree, None)
    assert list(again.seconds) == ["read", "regions", "encode"]


def test_a_damaged_tree_is_grown_anew(tmp_path: Path) -> None:
    plan, item = plan_for(trees=tmp_path), Item("a", str(picture(tmp_path / "a.png")))
    TreeCache(tmp_path, 1 << 20).put_bytes(finished(plan, item).tree, b"rubbish")
    assert finished(plan, item).tree_file is not None


def test_the_parts_of_the_work_may_be_in_several_processes(tmp_path: Path) -> None:
    plan, item = plan_for(trees=tmp_path), Item("a", str(picture(tmp_path / "a.png")))
    labeller = make_labeller(plan, quick_segmenter)
    grown = labeller.growing(labeller.prepare(item))
    assert not isinstance(grown, Failure)
    done, whole = make_finisher(plan).complete(grown.packed()), finished(plan, item)
    assert isinstance(done, Done)
    assert (done.output, done.tree, done.tree_file) == (whole.output, whole.tree, whole.tree_file)


@pytest.mark.parametrize(
    ("reference", "stage", "reason"),
    [
        ("/nowhere/a.jpg", "read", "'/nowhere/a.jpg' cannot be read (No such file or directory): see that it is there"),
        ("/", "read", "/ is no file: name a picture"),
        ("memory://nowhere/a.jpg", "read", "cannot be read"),
        ("data:image/png;base64,!!", "read", "base64 is broken"),
        ("http://127.0.0.1:9/a.jpg", "read", "cannot fetch the picture"),
        (data_url(b"rubbish!"), "decode", "are no picture that walkcut reads"),
    ],
)
def test_a_picture_that_cannot_be_had_is_a_failure(reference: str, stage: str, reason: str) -> None:
    failure = failed(Item("a", reference))
    assert failure.stage == stage
    assert reason in failure.reason


def test_limits_hold_for_files(tmp_path: Path) -> None:
    item = Item("a", str(picture(tmp_path / "a.png")))
    assert "more than 99 bytes" in failed(item, policy=FetchPolicy(max_bytes=99)).reason
    assert "more than 99. Scale" in failed(item, limits=DecodeLimits(max_pixels=99)).reason


def test_a_defect_costs_its_picture_alone(tmp_path: Path) -> None:
    labeller = make_labeller(plan_for(), lambda: Broken(quick_segmenter().extractor, quick_segmenter().recipe))
    failure = labeller(Item("a", str(picture(tmp_path / "a.png"))))
    assert isinstance(failure, Failure)
    assert failure.reason == "a defect of walkcut, please report it: TypeError: nobody foresaw this"
    assert labeller(failure) is failure


def test_several_pictures_a_task_are_refused() -> None:
    project = plan_for().project
    with pytest.raises(SettingsError, match=r"several pictures a task \(image, image\)"):
        replace(plan_for(), project=replace(project, targets=project.targets * 2))


def test_a_tree_is_cut_again_without_its_picture(tmp_path: Path) -> None:
    path = picture(tmp_path / "a.png")
    first = finished(plan_for(trees=tmp_path), Item("a", str(path)))
    assert first.tree_file is not None
    TreeCache(tmp_path, 1 << 20).put_bytes(first.tree, first.tree_file)
    path.unlink()
    recutter = Recutter(plan_for(granularities=(Segments(2),), trees=tmp_path), tmp_path)
    entry = Entry(first.item, first.tree, (), {})
    done = recutter.complete(recutter.prepare(entry))
    assert isinstance(done, Done)
    assert len(done.output.record["segments"]) == 2
    assert done.tree == first.tree
    lost = recutter.prepare(replace(entry, tree="lost"))
    assert isinstance(lost, Failure)
    assert "its cut tree is not there any more" in lost.reason


def test_levels_of_the_quick_segmenter_differ() -> None:
    assert [quick_segmenter().tree(quarters(24, 32)).segments(level) for level in Level] == [4, 2, 3, 4]
