from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cachetools import TTLCache
from jaxtyping import UInt8
from torch import Tensor

from tests.builders.label_config import make_image_tag, make_task_image
from tests.builders.memory import traced
from tests.builders.models import CountingBackbone, Gate, make_predictor
from tests.builders.predictions import SAMPLE
from tests.builders.scenes import data_url, png, quarters
from walkcut.backbones import FeatureKind, ImageFeatures
from walkcut.errors import BusyError, RequestError, SegmentationError, SettingsError, WalkcutError
from walkcut.hierarchy.cut_tree import build_tree
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.images import Deadline
from walkcut.inference.predictor import predict_all, regions_at_granularity
from walkcut.inference.project import Project, ProjectOptions, make_project
from walkcut.labelstudio.shapes import rle
from walkcut.labelstudio.tasks import Task
from walkcut.telemetry.failures import count_failures
from walkcut.telemetry.spans import record_spans

IMAGE_TAG = make_image_tag("$image", ("Region",))
IMAGE = make_task_image(IMAGE_TAG)
PROJECT = Project((IMAGE_TAG,), ProjectOptions())
NOW = Deadline(60, lambda: 0.0)  # with a clock that stands still
A, B = (data_url(png(quarters(*size))) for size in ((40, 60), (50, 30)))
MEGABYTE = 1 << 20
GONE, BROKEN = "gone.jpg", data_url(b"no image")


def task(number: int, image: str) -> Task:
    return Task(number, {"image": image})


def project(**options: Any) -> Project:
    return Project((IMAGE_TAG,), ProjectOptions(**options))


def masks(result: list[dict]) -> list[np.ndarray]:
    return [
        rle.decode(region["value"]["rle"], (region["original_height"], region["original_width"])) for region in result
    ]


def test_a_task_has_a_prediction_per_granularity_with_the_default_last(tmp_path: Path) -> None:
    predictor = make_predictor(tmp_path)
    found = predictor.predict(task(1, data_url(SAMPLE.read_bytes())), PROJECT)
    versions = [prediction.model_version for prediction in found]
    assert [version.split(" ")[0] for version in versions] == ["coarse", "medium", "fine", "auto"]
    assert versions[-1] == predictor.version(PROJECT, Level.AUTO)
    assert len(set(versions)) == 4
    assert all(0 <= prediction.score <= 1 for prediction in found)


def test_granularities_with_the_same_regions_share_a_prediction(tmp_path: Path) -> None:
    found = make_predictor(tmp_path).predict(task(1, data_url(png(np.full((40, 60, 3), 90, np.uint8)))), PROJECT)
    assert [prediction.model_version.split(" ")[0] for prediction in found] == ["auto"]
    found = make_predictor(tmp_path).predict(task(1, A), PROJECT)
    assert len({tuple(mask.tobytes() for mask in masks(prediction.result)) for prediction in found}) == 4


@pytest.mark.parametrize(
    ("default", "offered"),
    [(Level.MEDIUM, ["coarse", "fine", "auto", "medium"]), (Segments(3), ["coarse", "medium", "fine", "auto", "3"])],
    ids=str,
)
def test_the_default_comes_last_whatever_it_is(default: Level | Segments, offered: list[str]) -> None:
    assert [str(granularity) for granularity in ProjectOptions(default).granularities] == offered


def test_masks_have_the_images_size_and_share_no_pixel(tmp_path: Path) -> None:
    predictor = make_predictor(tmp_path)
    for prediction in predictor.predict(task(1, A), PROJECT):
        stacked = np.stack(masks(prediction.result))
        assert stacked.shape[1:] == (40, 60)
        assert stacked.sum(0).max() <= 1
        assert np.diff(stacked.sum((1, 2))).max(initial=0) <= 0


def test_small_regions_and_too_many_are_left_out(tmp_path: Path) -> None:
    tree = make_predictor(tmp_path).get_tree(A, 1)
    everything = regions_at_granularity(tree, Segments(30), project(min_area=0), IMAGE)
    largest = regions_at_granularity(tree, Segments(30), project(min_area=0, max_regions=2), IMAGE)
    assert len(everything) == tree.segment_count(Segments(30)) > 2
    assert [region.mask.tolist() for region in largest] == [region.mask.tolist() for region in everything[:2]]
    large = regions_at_granularity(tree, Segments(30), project(min_area=0.06), IMAGE)
    assert 0 < len(large) < len(everything)
    assert all(region.mask.mean() >= 0.06 for region in large)


def test_neighbours_differ_where_there_are_labels_enough(tmp_path: Path) -> None:
    tree = make_predictor(tmp_path).get_tree(A, 1)
    regions = regions_at_granularity(tree, Segments(4), PROJECT, make_task_image(make_image_tag(neutral="ABCDEF")))
    assert len({region.label for region in regions}) >= 2


def test_without_neutral_labels_regions_have_none(tmp_path: Path) -> None:
    image_tag = make_image_tag(neutral=(), labels=("Sky", "Tree"))
    (*_, found) = make_predictor(tmp_path).predict(task(1, A), Project((image_tag,), ProjectOptions()))
    assert {tuple(region["value"]["brushlabels"]) for region in found.result} == {()}


def test_one_bad_task_costs_the_others_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    predictor = make_predictor(tmp_path)
    tasks = [task(1, A), task(2, GONE), task(3, BROKEN), Task(4, {}), task(5, B)]
    found = predict_all(predictor, tasks, PROJECT, NOW)
    assert [len(predictions) for predictions in found] == [4, 0, 0, 0, 4]
    for number, reason in (
        (2, "cannot fetch the image 'gone.jpg'"),
        (3, "not in a supported image format"),
        (4, "has no image"),
    ):
        assert any(f"task {number}" in line and reason in line for line in caplog.messages)


def test_a_defect_met_by_one_task_costs_the_others_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail_once() -> None:
        if len(backbone.calls) == 1:
            raise ZeroDivisionError("a defect")

    backbone = CountingBackbone(hook=fail_once)
    predictor = make_predictor(tmp_path, backbone)
    found = predict_all(predictor, [task(1, A), task(2, B)], PROJECT, NOW)
    assert [len(predictions) for predictions in found] == [0, 4]
    assert "a bug in walkcut: please report it" in caplog.text


def test_nothing_is_begun_after_the_deadline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    moments = [0.0]

    @contextmanager
    def pass_time(name: str) -> Iterator[None]:
        yield
        if name == "encode":
            moments.append(10.0)

    with record_spans(pass_time):
        found = predict_all(
            make_predictor(tmp_path), [task(1, A), task(2, B)], PROJECT, Deadline(5, lambda: moments[-1])
        )
    assert [len(predictions) for predictions in found] == [4, 0]
    assert "task 2 timed out: Label Studio asks for it again" in caplog.text


def test_a_image_that_takes_too_long_is_handed_back_and_its_tree_kept(tmp_path: Path) -> None:
    gate = Gate()
    backbone = CountingBackbone(hook=gate)
    predictor, failures = make_predictor(tmp_path, backbone), list[Exception]()
    with count_failures(failures.append):
        assert predict_all(predictor, [task(1, A), task(2, B)], PROJECT, Deadline(0.05)) == [[], []]
    assert {type(failure) for failure in failures} == {BusyError}
    gate.opened.set()
    assert len(predictor.predict(task(1, A), PROJECT)) == 4
    assert len(backbone.calls) == 1


def test_an_annotators_call_is_given_up_in_time(tmp_path: Path) -> None:
    gate = Gate()
    predictor = make_predictor(tmp_path, CountingBackbone(hook=gate), timeout=0.05)
    with pytest.raises(BusyError, match="the request timed out"):
        predictor.tree_for_interactive(A, 1)
    gate.opened.set()


def test_images_in_the_references_of_recent_calls_are_not_kept(tmp_path: Path) -> None:
    predictor = make_predictor(tmp_path)
    images = [png(quarters(16, 16 + number)) for number in range(40)]
    references = (data_url(image + bytes(MEGABYTE)) for image in images)  # readers ignore what follows the image
    held, _ = traced(lambda: [predictor.tree_for_interactive(reference, 1).size for reference in references])
    assert held < 2 * MEGABYTE


def test_an_image_seen_minutes_ago_is_loaded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, loaded = [0.0], list[int]()

    def fetch(_: str, task_id: int | None) -> bytes:
        loaded.append(task_id or 0)
        return png(quarters(16, 16))

    monkeypatch.setattr("walkcut.inference.predictor.TTLCache", partial(TTLCache, timer=lambda: now[0]))
    predictor = make_predictor(tmp_path)
    monkeypatch.setattr(predictor.loader, "fetch", fetch)
    for now[0] in (0.0, 500.0, 700.0):
        for task_id in (1, 2):
            predictor.tree_for_interactive("a.png", task_id)
    assert loaded == [1, 1, 2, 1, 2], "once more to make the tree"


def test_regions_are_held_in_less_memory_than_one_of_their_masks(tmp_path: Path) -> None:
    pixels = np.arange(40).reshape(5, 8).repeat(300, 0).repeat(250, 1)
    merges = np.array([[max(0, row + 39 if row else 0), row + 1] for row in range(39)])
    hierarchy = Hierarchy(merges, np.linspace(0.9, 0.1, 39), np.ones(39, bool))
    tree = build_tree(pixels, hierarchy, dict.fromkeys((Level.COARSE, Level.MEDIUM, Level.FINE), 40))
    held, peak = traced(lambda: regions_at_granularity(tree, Level.FINE, project(max_regions=50), IMAGE))
    assert held < pixels.size / 4
    assert peak < 12 * pixels.size, "the map of segments, their borders, and one mask"


def test_stages_are_marked(tmp_path: Path) -> None:
    seen: list[str] = []

    @contextmanager
    def note(name: str) -> Iterator[None]:
        seen.append(name)
        yield

    with record_spans(note):
        make_predictor(tmp_path).predict(task(1, A), PROJECT)
    assert list(dict.fromkeys(seen))[:4] == ["fetch", "wait", "decode", "features"]
    assert [seen.count(name) for name in ("fetch", "regions", "encode")] == [1, 4, 4]


def test_a_image_seen_before_needs_no_model(tmp_path: Path) -> None:
    backbone = CountingBackbone()
    first = make_predictor(tmp_path, backbone)
    answer = first.predict(task(1, A), PROJECT)
    again = make_predictor(tmp_path, backbone)
    assert again.predict(task(1, A), PROJECT) == answer
    assert backbone.calls == [(40, 60, 3)]


def test_two_images_of_a_task_are_in_one_prediction(tmp_path: Path) -> None:
    predictor = make_predictor(tmp_path)
    image_tags = (
        make_image_tag("$one", ("R",), name="l", control="left"),
        make_image_tag("$two", ("R",), name="r", control="right"),
    )
    found = predictor.predict(Task(1, {"one": A, "two": B}), Project(image_tags, ProjectOptions()))
    assert {region["to_name"] for region in found[-1].result} == {"l", "r"}


@pytest.mark.parametrize(
    "other", [None, "", "gone.jpg", data_url(b"<svg/>"), data_url(png(np.zeros((2, 2, 3), np.uint8))), ["a", "b"]]
)
def test_an_image_that_fails_is_named_and_leaves_the_others_their_regions(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, other: object
) -> None:
    counted: list[Exception] = []
    image_tags = (
        make_image_tag("$one", ("R",), name="l", control="left"),
        make_image_tag("$two", ("R",), name="r", control="right"),
    )
    project = Project(image_tags, ProjectOptions())
    with count_failures(counted.append):
        found = make_predictor(tmp_path).predict(Task(1, {"one": other, "two": A}), project)
        assert {region["to_name"] for prediction in found for region in prediction.result} == {"r"}
        assert [str(error) for error in counted] == [caplog.messages[-1].partition("'l' of task 1 is left out: ")[2]]
        with pytest.raises(WalkcutError):
            make_predictor(tmp_path).predict(Task(1, {"one": other, "two": other}), project)


def test_an_image_that_may_be_answered_later_fails_the_task(tmp_path: Path) -> None:
    predictor = make_predictor(tmp_path)
    predictor.tree_service.stop_accepting()
    image_tags = (
        make_image_tag("$one", ("R",), name="l", control="left"),
        make_image_tag("$two", ("R",), name="r", control="right"),
    )
    with pytest.raises(BusyError):
        predictor.predict(Task(1, {"one": A, "two": B}), Project(image_tags, ProjectOptions()))


def test_a_prediction_without_regions_is_a_failure_with_the_remedy(tmp_path: Path) -> None:
    project = Project((IMAGE_TAG,), ProjectOptions(Level.FINE, min_area=0.99))
    predictor = make_predictor(tmp_path)
    with pytest.raises(
        SegmentationError, match=r"all segments of task 1 are smaller than min_area=0\.99 of the image: "
    ):
        predictor.predict(task(1, A), project)


def test_tasks_that_come_too_late_are_counted(tmp_path: Path) -> None:
    counted: list[Exception] = []
    with count_failures(counted.append):
        assert predict_all(make_predictor(tmp_path), [task(1, A)], PROJECT, Deadline(0.0)) == [[]]
    assert [type(error) for error in counted] == [BusyError]


def test_the_version_changes_with_every_option_and_with_the_label_config(tmp_path: Path) -> None:
    predictor = make_predictor(tmp_path)
    options = [
        ProjectOptions(),
        ProjectOptions(Level.FINE),
        ProjectOptions(max_regions=3),
        ProjectOptions(min_area=0.1),
    ]
    projects = [Project((IMAGE_TAG,), option) for option in options] + [
        Project((make_image_tag(neutral=("Car",)),), ProjectOptions())
    ]
    assert len({predictor.version(project, Level.FINE) for project in projects}) == 5


def test_attributes_come_before_extra_parameters_before_the_default() -> None:
    image_tag = replace(IMAGE_TAG, options={"Granularity": "12", "name": B})
    extra_params = {"granularity": "coarse", "min_area": 0.2, "other": 1}
    project = make_project((image_tag,), ProjectOptions(max_regions=7), extra_params)
    assert project.options == ProjectOptions(Segments(12), 7, 0.2)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"granularity": "tiny"}, "use auto, coarse"),
        ({"max_regions": "many"}, "max_regions is 'many': write a whole number, such as 40"),
        ({"min_area": "5%"}, "min_area is '5%': write a number, such as 0.0005"),
        ({"max_regions": 0}, "max_regions is 0"),
        ({"min_area": 2}, "fraction of the image"),
    ],
)
def test_options_that_cannot_be_used_are_named(chosen: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=f"cannot be used.*{message}"):
        make_project((IMAGE_TAG,), ProjectOptions(), chosen)


def test_options_check_themselves() -> None:
    with pytest.raises(SettingsError, match="max_regions is 0"):
        ProjectOptions(max_regions=0)


def test_what_was_given_up_for_lack_of_memory_is_told_in_the_info_panel(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Short(CountingBackbone):
        def extract(self, image: UInt8[Tensor, "y x 3"], kinds: frozenset[FeatureKind]) -> ImageFeatures:
            return replace(self.inner.extract(image, kinds), degradations=("attention sliced",))

    for backbone, told in ((Short(), ["attention sliced"]), (CountingBackbone(), None)):
        predictions = make_predictor(tmp_path / str(told), backbone).predict(task(1, A), PROJECT)
        assert (
            [region["meta"].get("text") for region in predictions[-1].result]
            == [told] * len(predictions[-1].result)
            != []
        )
