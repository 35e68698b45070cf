import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jaxtyping import UInt8
from torch import Tensor

from tests.builders.scenes import data_url, png, quarters
from walkcut.backbones import Evidence, Extractor, Part, load_extractor
from walkcut.errors import BusyError, RequestError, SettingsError
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.images import Deadline, DecodeLimits, FetchPolicy, PictureSource
from walkcut.inference.predictor import (
    Annotator,
    Options,
    Project,
    find_regions,
    predict_all,
    project_options,
)
from walkcut.inference.tree_service import Grower, LocalModel
from walkcut.labelstudio import BrushTarget, Task, brush
from walkcut.segmentation.presets import RECIPES
from walkcut.segmentation.segmenter import Segmenter
from walkcut.storage import TreeCache
from walkcut.telemetry.stages import counted, observed

TARGET = BrushTarget("brush", "image", "image", ("Region",))
PROJECT = Project((TARGET,), Options())
NOW = Deadline(60, lambda: 0.0)  # with a clock that stands still
A, B = (data_url(png(quarters(*size))) for size in ((40, 60), (50, 30)))
GONE, BROKEN = "gone.jpg", data_url(b"no picture")


@dataclass(frozen=True)
class Counting:
    """The embedded extractor, and how often it was asked."""

    inner: Extractor = field(default_factory=lambda: load_extractor("embedded"))
    calls: list[tuple[int, ...]] = field(default_factory=list)
    hook: Callable[[], None] = lambda: None

    @property
    def version(self) -> str:
        return self.inner.version

    @property
    def offers(self) -> frozenset[Part]:
        return self.inner.offers

    def extract(self, image: UInt8[Tensor, "y x 3"], parts: frozenset[Part]) -> Evidence:
        self.calls.append(tuple(image.shape))
        self.hook()
        return self.inner.extract(image, parts)


@dataclass
class Gate:
    """Makes whoever comes by wait until it is opened."""

    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> None:
        assert self.opened.wait(60)


def annotator(folder: Path, extractor: Extractor | None = None, patience: float = 80.0) -> Annotator:
    segmenter = Segmenter(extractor or load_extractor("embedded"), RECIPES["merge"])
    grower = Grower(LocalModel(segmenter, DecodeLimits()), TreeCache(folder, 1 << 24))
    return Annotator(grower, PictureSource(FetchPolicy(), None), Options(), patience=patience)


def task(number: int, picture: str) -> Task:
    return Task(number, {"image": picture})


def project(**options: Any) -> Project:
    return Project((TARGET,), Options(**options))


def masks(result: list[dict]) -> list[np.ndarray]:
    return [
        brush.decode(region["value"]["rle"], (region["original_height"], region["original_width"])) for region in result
    ]


def test_a_task_has_a_prediction_per_granularity_with_the_default_last(tmp_path: Path) -> None:
    mine = annotator(tmp_path)
    found = mine.predict(task(1, A), PROJECT)
    versions = [prediction.model_version for prediction in found]
    assert [version.split("-")[0] for version in versions] == ["coarse", "medium", "fine", "auto"]
    assert versions[-1] == mine.version(PROJECT, Level.AUTO)
    assert len(set(versions)) == 4
    assert all(0 <= prediction.score <= 1 for prediction in found)


@pytest.mark.parametrize(
    ("default", "offered"),
    [(Level.MEDIUM, ["coarse", "fine", "auto", "medium"]), (Segments(3), ["coarse", "medium", "fine", "auto", "3"])],
    ids=str,
)
def test_the_default_comes_last_whatever_it_is(default: Level | Segments, offered: list[str]) -> None:
    assert [str(granularity) for granularity in Options(default).granularities] == offered


def test_masks_have_the_pictures_size_and_share_no_pixel(tmp_path: Path) -> None:
    mine = annotator(tmp_path)
    for prediction in mine.predict(task(1, A), PROJECT):
        stacked = np.stack(masks(prediction.result))
        assert stacked.shape[1:] == (40, 60)
        assert stacked.sum(0).max() <= 1
        assert np.diff(stacked.sum((1, 2))).max(initial=0) <= 0


def test_small_regions_and_too_many_are_left_out(tmp_path: Path) -> None:
    tree = annotator(tmp_path).tree(A, 1)
    everything = find_regions(tree, Segments(30), project(min_area=0), TARGET)
    largest = find_regions(tree, Segments(30), project(min_area=0, max_regions=2), TARGET)
    assert len(everything) == tree.segments(Segments(30)) > 2
    assert [region.mask.tolist() for region in largest] == [region.mask.tolist() for region in everything[:2]]
    large = find_regions(tree, Segments(30), project(min_area=0.1), TARGET)
    assert 0 < len(large) < len(everything)
    assert all(region.mask.mean() >= 0.1 for region in large)


def test_neighbours_differ_where_there_are_labels_enough(tmp_path: Path) -> None:
    tree = annotator(tmp_path).tree(A, 1)
    regions = find_regions(tree, Segments(4), PROJECT, replace(TARGET, neutral=tuple("ABCDEF")))
    assert len({region.label for region in regions}) >= 2


def test_one_bad_task_costs_the_others_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    mine = annotator(tmp_path)
    tasks = [task(1, A), task(2, GONE), task(3, BROKEN), Task(4, {}), task(5, B)]
    found = predict_all(mine, tasks, PROJECT, NOW)
    assert [len(predictions) for predictions in found] == [4, 0, 0, 0, 4]
    for number, reason in (
        (2, "cannot fetch the picture 'gone.jpg'"),
        (3, "no picture that walkcut reads"),
        (4, "has no picture"),
    ):
        assert any(f"task {number}" in line and reason in line for line in caplog.messages)


def test_a_defect_met_by_one_task_costs_the_others_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail_once() -> None:
        if len(extractor.calls) == 1:
            raise ZeroDivisionError("a defect")

    extractor = Counting(hook=fail_once)
    mine = annotator(tmp_path, extractor)
    found = predict_all(mine, [task(1, A), task(2, B)], PROJECT, NOW)
    assert [len(predictions) for predictions in found] == [0, 4]
    assert "please report it" in caplog.text


def test_nothing_is_begun_after_the_deadline(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    moments = [0.0]

    @contextmanager
    def pass_time(name: str) -> Iterator[None]:
        yield
        if name == "encode":
            moments.append(10.0)

    with observed(pass_time):
        found = predict_all(annotator(tmp_path), [task(1, A), task(2, B)], PROJECT, Deadline(5, lambda: moments[-1]))
    assert [len(predictions) for predictions in found] == [4, 0]
    assert "no time left for task 2" in caplog.text


def test_a_picture_that_takes_too_long_is_handed_back_and_its_tree_kept(tmp_path: Path) -> None:
    gate = Gate()
    extractor = Counting(hook=gate)
    mine, failures = annotator(tmp_path, extractor), list[Exception]()
    with counted(failures.append):
        assert predict_all(mine, [task(1, A), task(2, B)], PROJECT, Deadline(0.05)) == [[], []]
    assert {type(failure) for failure in failures} == {BusyError}
    gate.opened.set()
    assert len(mine.predict(task(1, A), PROJECT)) == 4
    assert len(extractor.calls) == 1


def test_an_annotators_call_is_given_up_in_time(tmp_path: Path) -> None:
    gate = Gate()
    mine = annotator(tmp_path, Counting(hook=gate), patience=0.05)
    with pytest.raises(BusyError, match="no time left"):
        mine.recent_tree(A, 1)
    gate.opened.set()


def test_stages_are_marked(tmp_path: Path) -> None:
    seen: list[str] = []

    @contextmanager
    def note(name: str) -> Iterator[None]:
        seen.append(name)
        yield

    with observed(note):
        annotator(tmp_path).predict(task(1, A), PROJECT)
    assert list(dict.fromkeys(seen))[:4] == ["fetch", "wait", "decode", "evidence"]
    assert [seen.count(name) for name in ("fetch", "regions", "encode")] == [1, 4, 4]


def test_a_picture_seen_before_needs_no_model(tmp_path: Path) -> None:
    extractor = Counting()
    first = annotator(tmp_path, extractor)
    answer = first.predict(task(1, A), PROJECT)
    again = annotator(tmp_path, extractor)
    assert again.predict(task(1, A), PROJECT) == answer
    assert extractor.calls == [(40, 60, 3)]


def test_two_pictures_of_a_task_are_in_one_prediction(tmp_path: Path) -> None:
    mine = annotator(tmp_path)
    targets = BrushTarget("left", "l", "one", ("R",)), BrushTarget("right", "r", "two", ("R",))
    found = mine.predict(Task(1, {"one": A, "two": B}), Project(targets, Options()))
    assert {region["to_name"] for region in found[-1].result} == {"l", "r"}


def test_the_version_changes_with_every_option_and_with_the_label_config(tmp_path: Path) -> None:
    mine = annotator(tmp_path)
    options = [Options(), Options(Level.FINE), Options(max_regions=3), Options(min_area=0.1)]
    projects = [Project((TARGET,), each) for each in options] + [
        Project((replace(TARGET, neutral=("Car",)),), Options())
    ]
    assert len({mine.version(each, Level.FINE) for each in projects}) == 5


def test_attributes_come_before_extra_parameters_before_the_default() -> None:
    options = project_options(
        Options(max_regions=7), {"granularity": "coarse", "min_area": 0.2, "other": 1}, {"granularity": "12", "name": B}
    )
    assert options == Options(Segments(12), 7, 0.2)


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        ({"granularity": "tiny"}, "write auto, coarse"),
        ({"max_regions": "many"}, "invalid literal"),
        ({"max_regions": 0}, "room for 1 region"),
        ({"min_area": 2}, "share of the picture"),
    ],
)
def test_options_that_cannot_be_used_are_named(chosen: dict[str, object], message: str) -> None:
    with pytest.raises(RequestError, match=f"cannot be used.*{message}"):
        project_options(Options(), chosen, {})


def test_options_check_themselves() -> None:
    with pytest.raises(SettingsError, match="max_regions is 0"):
        Options(max_regions=0)


def test_what_was_given_up_for_lack_of_memory_is_told_in_the_info_panel(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Short(Counting):
        def extract(self, image: UInt8[Tensor, "y x 3"], parts: frozenset[Part]) -> Evidence:
            return replace(self.inner.extract(image, parts), concessions=("attention sliced",))

    for extractor, told in ((Short(), {"text": ["attention sliced"]}), (Counting(), None)):
        predictions = annotator(tmp_path / str(told), extractor).predict(task(1, A), PROJECT)
        assert [region.get("meta") for region in predictions[-1].result] == [told] * len(predictions[-1].result) != []
