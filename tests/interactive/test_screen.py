"""What is on an annotator's screen after commands and prompts, by a model of Label Studio's editor."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.builders.editor import Annotation
from tests.builders.label_config import make_image_tag
from tests.builders.scenes import data_url, png, quarters
from walkcut.backbones import load_backbone
from walkcut.hierarchy.granularity import Segments
from walkcut.images import DecodeLimits, FetchPolicy, ImageLoader
from walkcut.inference.model import InProcessModel
from walkcut.inference.predictor import Predictor
from walkcut.inference.project import Project, ProjectOptions
from walkcut.inference.tree_service import TreeService
from walkcut.interactive.interactive_segmenter import InteractiveSegmenter
from walkcut.interactive.session import SessionStore
from walkcut.labelstudio.predictions import is_modified
from walkcut.labelstudio.tasks import Task
from walkcut.learning.calibration import Calibration
from walkcut.learning.profile import ProjectProfile
from walkcut.learning.prototypes import Examples, build_prototypes
from walkcut.segmentation.presets import PRESETS
from walkcut.segmentation.segmenter import Segmenter
from walkcut.storage import TreeCache

SIZE = (48, 64)
SCENE = quarters(*SIZE)
SCENE[6:18, 8:20], SCENE[30:42, 40:60], SCENE[8:14, 44:56] = (20, 20, 160), (10, 10, 10), (250, 250, 250)
IMAGE = data_url(png(SCENE))
LABELS = ("A", "B", "Car", "Sky")
IMAGE_TAG = make_image_tag("$image", ("A", "B"), labels=LABELS, status_field="status")
PROJECT = Project((IMAGE_TAG,), ProjectOptions(Segments(5)))


@pytest.fixture(scope="module")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Predictor:
    model = InProcessModel(Segmenter(load_backbone("classical"), PRESETS["merge"]), DecodeLimits())
    cache = TreeCache(tmp_path_factory.mktemp("trees"), 1 << 24)
    return Predictor(TreeService(model, cache), ImageLoader(FetchPolicy(), None), ProjectOptions())


class Desk:
    """An annotator at work on a task, in one annotation, on walkcut's suggestions."""

    def __init__(self, predictor: Predictor, start: int | None = -1, project: Project = PROJECT) -> None:
        """Open the task; `start` is the index of the prediction that pre-fills the annotation."""
        self.now, self.lines, self.project, self.submitted = 0.0, list[str](), project, tuple[dict[str, Any], ...]()
        self.interactive = InteractiveSegmenter(predictor, SessionStore(lambda: self.now))
        predictions = [prediction.as_json() for prediction in predictor.predict(Task(1, {"image": IMAGE}), project)]
        self.predictions = tuple({"id": index, **document} for index, document in enumerate(predictions))
        self.annotation = Annotation(SIZE, None if start is None else self.predictions[start])

    def call(self, context: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.now += 1
        task = Task(1, {"image": IMAGE}, tuple(self.annotation.drafts), self.submitted, self.predictions)
        return self.interactive.answer(task, self.project, {"result": context}).result

    def type(self, line: str) -> list[dict[str, Any]]:
        self.lines.append(line)
        return self.call([{"id": "t", "type": "textarea", "from_name": "granularity", "value": {"text": self.lines}}])

    def click(self, verb: str, *places: tuple[float, float]) -> list[dict[str, Any]]:
        values = [{"x": 100 * x, "y": 100 * y, "keypointlabels": [verb]} for x, y in places]
        return self.call([{"id": f"{self.now} {x}", "type": "keypointlabels", "value": x} for x in values])

    def box(self, x: float, y: float, width: float, height: float) -> list[dict[str, Any]]:
        value = {"x": 100 * x, "y": 100 * y, "width": 100 * width, "height": 100 * height, "rectanglelabels": ["R"]}
        return self.call([{"id": f"box {self.now}", "type": "rectanglelabels", "value": value}])


def made(annotation: Annotation) -> dict[str, tuple[object, bytes]]:
    """Label and pixels of the regions that a person made, by id."""
    items = {
        name: item
        for name, item in annotation.items.items()
        if is_modified(item, (item["value"]["brushlabels"] or [""])[0])
    }
    return {name: (item["value"]["brushlabels"], annotation.mask(name).tobytes()) for name, item in items.items()}


def assert_segments(annotation: Annotation, regions: int) -> None:
    assert len(annotation.items) == regions
    assert (annotation.covered() == 1).all()


@pytest.mark.parametrize("start", [None, 0, 1, 2, -1])
def test_the_first_command_replaces_whatever_the_annotation_was_started_from(
    predictor: Predictor, start: int | None
) -> None:
    desk = Desk(predictor, start)
    desk.annotation.accept(desk.type("3"))
    assert_segments(desk.annotation, 3)


def test_regions_of_other_ids_that_pre_filled_are_replaced(predictor: Predictor) -> None:
    desk = Desk(predictor)
    foreign = [item | {"id": f"foreign {name}"} for name, item in desk.annotation.items.items()]
    desk.predictions = (*desk.predictions, {"id": 9, "result": foreign})
    desk.annotation = Annotation(SIZE, desk.predictions[-1])
    desk.annotation.accept(desk.type("3"))
    assert_segments(desk.annotation, 3)


def test_a_second_command_replaces_the_first_with_and_without_a_draft(predictor: Predictor) -> None:
    desk = Desk(predictor)
    for line, regions in (("7", 7), ("2", 2), ("4", 4)):
        desk.annotation.accept(desk.type(line))
        assert_segments(desk.annotation, regions)
    desk.annotation.save()
    desk.annotation.accept(desk.type("6"))
    assert_segments(desk.annotation, 6)


def test_a_command_replaces_split_and_selected_regions(predictor: Predictor) -> None:
    desk = Desk(predictor)
    desk.annotation.accept(desk.click("Finer", (0.2, 0.2)))
    assert_segments(desk.annotation, 6)
    desk.annotation.accept(desk.type("3"))
    assert_segments(desk.annotation, 3)


def test_named_and_painted_regions_stay(predictor: Predictor) -> None:
    desk = Desk(predictor)
    named, painted, *_ = desk.annotation.items
    desk.annotation.name(named, "Car")
    mask = desk.annotation.mask(painted)
    mask[: np.argwhere(mask)[:, 0].mean().astype(int)] = False
    desk.annotation.paint(painted, mask)
    desk.annotation.save()
    before = made(desk.annotation)
    assert before.keys() == {named, painted}
    for line in ("7", "2"):
        desk.annotation.accept(desk.type(line))
        assert made(desk.annotation) == before
        assert (desk.annotation.covered() <= 1).all()


@pytest.mark.parametrize("start", [None, 0, 1, -1])
@pytest.mark.parametrize("is_submitted", [False, True])
def test_a_command_is_right_whatever_is_on_the_screen_beside_another_annotation(
    predictor: Predictor, start: int | None, is_submitted: bool
) -> None:
    """The other one is a draft of the same annotator, or was submitted by anybody."""
    other, desk = Desk(predictor), Desk(predictor, start)
    other.annotation.accept(other.type("3"))
    other.annotation.name(next(iter(other.annotation.items)), "Car")
    other.annotation.save()
    if is_submitted:
        desk.submitted = tuple(other.annotation.drafts)
    else:
        desk.annotation.drafts = other.annotation.drafts
    suggestions = desk.type("4")
    desk.annotation.accept(suggestions)
    assert (desk.annotation.covered() == 1).all()
    (status,) = [item["value"]["text"][0] for item in suggestions if item["type"] == "textarea"]
    assert status.startswith(f"→ {len(desk.annotation.items)} regions, 1 of them kept; ")


@pytest.mark.parametrize("start", [None, 0, 1, -1])
@pytest.mark.parametrize("verb", ["Finer", "Coarser", "Select", "Car"])
def test_a_point_is_right_whatever_is_on_the_screen_beside_a_submitted_annotation(
    predictor: Predictor, start: int | None, verb: str
) -> None:
    other, desk = Desk(predictor), Desk(predictor, start)
    other.annotation.accept(other.type("3"))
    other.annotation.save()
    desk.submitted = tuple(other.annotation.drafts)
    desk.annotation.accept(desk.click(verb, (0.1, 0.1)))
    assert (desk.annotation.covered() == 1).all()


@pytest.mark.parametrize("rejected", ["9", "2", "Merge", "Coarser", "Finer", "Select"])
@pytest.mark.parametrize("verb", ["Merge", "Coarser", "Finer", "Select"])
def test_a_point_is_right_whether_the_last_suggestions_were_accepted_or_rejected(
    predictor: Predictor, rejected: str, verb: str
) -> None:
    for is_accepted in (False, True):
        desk, ends = Desk(predictor), {"Merge": ((0.05, 0.05), (0.9, 0.9))}
        place = ((0.05, 0.05),)
        first = desk.type(rejected) if rejected.isdigit() else desk.click(rejected, *ends.get(rejected, place))
        if is_accepted:
            desk.annotation.accept(first)
        desk.annotation.accept(desk.click(verb, *{"Merge": ((0.9, 0.05), (0.05, 0.9))}.get(verb, place)))
        assert (desk.annotation.covered() == 1).all()


def test_an_edit_that_fails_suggests_nothing(predictor: Predictor) -> None:
    desk = Desk(predictor)
    desk.click("Finer", (0.05, 0.05))
    assert [item["type"] for item in desk.click("Merge", (0.05, 0.05))] == ["textarea"]


def learned(predictor: Predictor) -> Project:
    """A project that takes everything for sky."""
    tree = predictor.get_tree(IMAGE, 1)
    areas = tree.segment_areas(tree.segment_of(Segments(5)))
    sky, images = np.zeros(len(areas), np.int64), np.arange(len(areas))
    prototypes = build_prototypes(Examples(tree.part_descriptors(areas), tree.part_layouts(areas), sky, images), 2)
    calibration = Calibration(np.zeros(1), np.ones((1, 2)))
    options = replace(PROJECT.options, label_confidence=0.0)
    return replace(PROJECT, options=options, profile=ProjectProfile(None, ("Sky",), prototypes, calibration))


@pytest.mark.parametrize("is_saved", [False, True])
def test_names_that_walkcut_gave_are_replaced(predictor: Predictor, is_saved: bool) -> None:
    desk = Desk(predictor, project=learned(predictor))
    for line, regions in (("7", 7), ("3", 3)):
        assert {item["value"]["brushlabels"][0] for item in desk.annotation.items.values()} == {"Sky"}
        if is_saved:
            desk.annotation.save()
        desk.annotation.accept(desk.type(line))
        assert_segments(desk.annotation, regions)


def test_a_region_selected_by_its_class_stays(predictor: Predictor) -> None:
    desk = Desk(predictor, None)
    desk.annotation.save()
    desk.annotation.accept(desk.click("Car", (0.2, 0.2)))
    (car,) = desk.annotation.items
    for is_saved in (False, True):
        if is_saved:
            desk.annotation.save()
        desk.annotation.accept(desk.type("4"))
        assert desk.annotation.items[car]["value"]["brushlabels"] == ["Car"]
        assert (desk.annotation.covered() == 1).all()


def test_a_named_region_stays_after_it_was_split(predictor: Predictor) -> None:
    desk = Desk(predictor)
    car, *_ = desk.annotation.items
    desk.annotation.name(car, "Car")
    desk.annotation.save()
    y, x = np.argwhere(desk.annotation.mask(car))[0]
    desk.annotation.accept(desk.click("Finer", ((x + 0.5) / SIZE[1], (y + 0.5) / SIZE[0])))
    desk.annotation.save()
    desk.annotation.accept(desk.type("3"))
    cars = [item for item in desk.annotation.items.values() if item["value"]["brushlabels"] == ["Car"]]
    assert len(cars) == 2
    assert (desk.annotation.covered() == 1).all()


# Random edits

fractions = st.floats(0.01, 0.99)
places = st.tuples(fractions, fractions)
Call = Callable[[Desk], list[dict[str, Any]]]
commands: st.SearchStrategy[Call] = st.sampled_from(["1", "2", "4", "9", "finer", "coarser", "auto", "nonsense"]).map(
    lambda line: lambda desk: desk.type(line)
)
prompts: st.SearchStrategy[Call] = st.one_of(
    st.builds(lambda verb, place: lambda desk: desk.click(verb, place), st.sampled_from(["Finer", "Coarser"]), places),
    st.builds(
        lambda verb, ends: lambda desk: desk.click(verb, *ends),
        st.sampled_from(["Merge", "Select", "Sky"]),
        st.lists(places, min_size=2, max_size=3),
    ),
    st.tuples(*[st.floats(0, 0.6)] * 2).map(lambda place: lambda desk: desk.box(*place, 0.4, 0.4)),
)


@dataclass(frozen=True)
class Step:
    """Edits by hand, which are saved before the next call; then a call, and what becomes of its suggestions."""

    edits: list[tuple[str, tuple[float, float]]]
    call: Call
    is_typed: bool
    is_accepted: bool
    is_saved: bool


steps = st.lists(
    st.booleans().flatmap(
        lambda is_typed: st.builds(
            Step,
            st.lists(st.tuples(st.sampled_from(["name", "erase", "delete", "draw"]), places), max_size=3),
            commands if is_typed else prompts,
            st.just(is_typed),
            st.booleans(),
            st.booleans(),
        )
    ),
    min_size=1,
    max_size=6,
)


def edit_by_hand(annotation: Annotation, kind: str, place: tuple[float, float]) -> None:
    """Name, erase from, delete or draw a region, so that no pixel is in two."""
    y, x = int(place[1] * SIZE[0]), int(place[0] * SIZE[1])
    square = np.zeros(SIZE, bool)
    square[y : y + 12, x : x + 12] = True
    if kind == "draw" and (free := square & (annotation.covered() == 0)).any():
        annotation.draw(f"drawn {len(annotation.items)} {place}", "A", free, "brush", "image")
    for name in [name for name in annotation.items if annotation.mask(name)[y, x]]:
        if kind == "name":
            annotation.name(name, "Car")
        elif kind == "delete":
            annotation.delete(name)
        elif kind == "erase" and (rest := annotation.mask(name) & ~square).any():
            annotation.paint(name, rest)


@settings(max_examples=60, deadline=None)
@given(steps, st.sampled_from([None, 0, -1]))
def test_no_pixel_is_in_two_regions_and_commands_keep_what_a_person_made(
    predictor: Predictor, work: list[Step], start: int | None
) -> None:
    desk, is_known = Desk(predictor, start), True
    annotation = desk.annotation
    if start != -1:  # until there is a draft, points refer to the default prediction
        annotation.accept(desk.type("5"))
    for step in work:
        for kind, place in step.edits:
            edit_by_hand(annotation, kind, place)
        if step.edits:
            annotation.save()
        by_hand = made(annotation)
        suggestions = step.call(desk)
        if step.is_accepted:
            annotation.accept(suggestions)
        assert annotation.covered().max(initial=0) <= 1
        if step.is_typed and (is_known or step.edits):
            assert by_hand.items() <= made(annotation).items()
        if step.is_saved:
            annotation.save()
            desk.now += 20
        is_known = step.is_accepted or step.is_saved  # until there is a draft, walkcut takes suggestions for accepted
