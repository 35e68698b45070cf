from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders.label_config import make_image_tag
from tests.builders.models import CountingBackbone
from tests.builders.scenes import data_url, png, quarters
from walkcut.backbones import load_backbone
from walkcut.errors import RequestError
from walkcut.hierarchy.granularity import Segments
from walkcut.images import DecodeLimits, FetchPolicy, ImageLoader
from walkcut.inference.model import InProcessModel
from walkcut.inference.predictor import Predictor
from walkcut.inference.project import Project, ProjectOptions
from walkcut.inference.tree_service import TreeService
from walkcut.interactive.interactive_segmenter import InteractiveSegmenter, answer_all
from walkcut.interactive.session import SessionStore
from walkcut.labelstudio.predictions import Prediction
from walkcut.labelstudio.shapes import rle
from walkcut.labelstudio.tasks import Task
from walkcut.segmentation.presets import PRESETS
from walkcut.segmentation.segmenter import Segmenter
from walkcut.storage import TreeCache

SIZE = (40, 60)
IMAGE = data_url(png(quarters(*SIZE)))
IMAGE_TAG = make_image_tag("$image", ("A", "B"), labels=("A", "B", "Car"), status_field="status")
PROJECT = Project((IMAGE_TAG,), ProjectOptions(Segments(4)))


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def predictor(tmp_path: Path) -> Predictor:
    segmenter = Segmenter(load_backbone("classical"), PRESETS["merge"])
    source = ImageLoader(FetchPolicy(), None)
    return Predictor(
        TreeService(InProcessModel(segmenter, DecodeLimits()), TreeCache(tmp_path, 1 << 24)), source, ProjectOptions()
    )


@pytest.fixture
def interactive(predictor: Predictor, clock: Clock) -> InteractiveSegmenter:
    return InteractiveSegmenter(predictor, SessionStore(clock))


def task(**documents: Sequence[Mapping[str, Any]]) -> Task:
    return Task(1, {"image": IMAGE}, **documents)


def typed(*lines: str) -> dict[str, Any]:
    return {"result": [{"type": "textarea", "from_name": "granularity", "value": {"text": list(lines)}}]}


def clicks(label: str, *places: tuple[float, float], start: int = 0, is_positive: bool = True) -> dict[str, Any]:
    """Clicks at fractions of the width and height."""
    items = [
        {
            "id": f"p{number}",
            "type": "keypointlabels",
            "value": {"x": 100 * x, "y": 100 * y, "keypointlabels": [label]},
            "is_positive": is_positive,
        }
        for number, (x, y) in enumerate(places, start)
    ]
    return {"result": items}


def box(label: str, x: float, y: float, width: float, height: float, name: str = "b") -> dict[str, Any]:
    """A context with a smart rectangle, in percent."""
    value = {"x": x, "y": y, "width": width, "height": height, "rectanglelabels": [label]}
    return {"result": [{"id": name, "type": "rectanglelabels", "value": value}]}


def together(*contexts: dict[str, Any]) -> dict[str, Any]:
    return {"result": [item for context in contexts for item in context["result"]]}


def regions(answer: Prediction) -> dict[str, tuple[str, np.ndarray]]:
    """Label and mask by id of the regions that are drawn."""
    drawn = [item for item in answer.result if item["type"] == "brushlabels" and not item.get("dynamic")]
    return {item["id"]: (item["value"]["brushlabels"][0], rle.decode(item["value"]["rle"], SIZE)) for item in drawn}


def deleted(answer: Prediction) -> set[str]:
    return {item["id"] for item in answer.result if item.get("dynamic")}


def status_text(answer: Prediction) -> str:
    (item,) = [item for item in answer.result if item["type"] == "textarea"]
    assert (item["from_name"], item["to_name"]) == ("status", "image")
    return " | ".join(item["value"]["text"])


def areas(answer: Prediction) -> list[int]:
    """The regions' sizes, in quarters of the image's 2400 pixels that are right to a few pixels."""
    return sorted(int(mask.sum()) for _, mask in regions(answer).values())


def approximately(*sizes: int) -> object:
    return pytest.approx(list(sizes), abs=5)


def draft(answer: Prediction, saved: int = 0, *, named: str = "", painted: str = "") -> Mapping[str, Any]:
    """The draft after an answer was accepted, one region was named a car, and one was painted on."""
    drawn = [item for item in answer.result if item["type"] == "brushlabels" and not item.get("dynamic")]
    result = [
        item
        | {"value": item["value"] | ({"brushlabels": ["Car"]} if item["id"] == named else {})}
        | ({"origin": "prediction-changed"} if item["id"] == painted else {})
        for item in drawn
    ]
    return {"result": result, "updated_at": f"2026-11-20T12:00:{saved:02}Z"}


# Typing


def test_a_typed_granularity_segments_the_image_and_is_reported(interactive: InteractiveSegmenter) -> None:
    answer = interactive.answer(task(), PROJECT, typed("3"))
    assert len(regions(answer)) == 3
    assert status_text(answer) == "→ 3 regions"
    assert sum(areas(answer)) == 40 * 60


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["4", "coarser"], "→ 3 regions"),
        (["auto"], "→ auto: 4 regions"),
        (["tau=0.0001"], "→ tau=0.0001: "),
        (["k=1"], "→ k=1: 4 regions"),
        (["1"], "→ 1 region"),
        (["4", "nonsense"], "→ Unknown granularity 'nonsense': use auto, coarse"),
    ],
)
def test_the_status_reports_the_granularity_or_the_valid_commands(
    interactive: InteractiveSegmenter, lines: list[str], status: str
) -> None:
    assert status_text(interactive.answer(task(), PROJECT, typed(*lines))).startswith(status)


def test_the_status_says_how_many_regions_there_are_after_acceptance(interactive: InteractiveSegmenter) -> None:
    four = interactive.answer(task(), PROJECT, typed("4"))
    named, *_ = regions(four)
    answer = interactive.answer(task(drafts=[draft(four, named=named)]), PROJECT, typed("4", "2"))
    assert len({*regions(four), *regions(answer)} - deleted(answer)) == 3
    assert len(deleted(answer)) == 1
    assert status_text(answer) == "→ 3 regions, 1 of them kept; 1 more suggestion removes old ones"


@pytest.mark.parametrize(
    ("context", "status"),
    [
        (clicks("Finer", (0.1, 0.1)), "Split into 2 regions"),
        (clicks("Coarser", (0.1, 0.1)), "2 regions merged into 1"),
        (clicks("Merge", (0.1, 0.1), (0.9, 0.9)), "2 regions merged into 1"),
        (clicks("Car", (0.1, 0.1)), "Selected: Car"),
        (clicks("Select", (0.1, 0.1), is_positive=False), "Nothing selected: click without Alt"),
    ],
)
def test_the_status_of_an_edit_is_one_short_sentence(
    interactive: InteractiveSegmenter, context: dict[str, Any], status: str
) -> None:
    interactive.answer(task(), PROJECT, typed("4"))
    assert status_text(interactive.answer(task(), PROJECT, context)) == f"→ {status}"
    assert len(status) <= 40


def test_segments_too_small_to_show_are_reported(interactive: InteractiveSegmenter) -> None:
    project = replace(PROJECT, options=ProjectOptions(max_regions=2))
    assert status_text(interactive.answer(task(), project, typed("3"))) == "→ 2 regions; 1 too small to show"


def test_without_a_status_field_the_message_follows_the_commands(interactive: InteractiveSegmenter) -> None:
    project = replace(PROJECT, image_tags=(replace(IMAGE_TAG, status_field="granularity"),))
    (item,) = [i for i in interactive.answer(task(), project, typed("3", "4")).result if i["type"] == "textarea"]
    assert (item["from_name"], item["value"]["text"]) == ("granularity", ["3", "4", "→ 4 regions"])
    silent = replace(PROJECT, image_tags=(replace(IMAGE_TAG, status_field=""),))
    assert all(item["type"] == "brushlabels" for item in interactive.answer(task(), silent, typed("3")).result)


def test_a_command_has_the_ids_of_the_predictions_and_deletes_the_others(
    interactive: InteractiveSegmenter, predictor: Predictor
) -> None:
    predictions = [prediction.as_json() for prediction in predictor.predict(task(), PROJECT)]
    ids = max(([item["id"] for item in document["result"]] for document in predictions), key=len)
    answer = interactive.answer(task(predictions=predictions), PROJECT, typed("3"))
    assert ([*regions(answer)], deleted(answer)) == (ids[:3], {*ids[3:]})


def test_typing_again_replaces_unmodified_regions_and_keeps_modified_ones(
    interactive: InteractiveSegmenter,
) -> None:
    four = interactive.answer(task(), PROJECT, typed("4"))
    named, painted, *others = regions(four)
    on_screen = draft(four, named=named, painted=painted)
    two = interactive.answer(task(drafts=[on_screen]), PROJECT, typed("4", "2"))
    assert {*regions(two), *deleted(two)} == {*regions(four)}
    new = {name: mask for name, (_, mask) in regions(two).items() if name in others}
    kept = regions(four)[named][1] | regions(four)[painted][1]
    assert not any((mask & kept).any() for mask in new.values())
    assert regions(two)[named][0] == "Car"
    for name in (named, painted):
        assert np.array_equal(regions(two)[name][1], regions(four)[name][1])


def test_a_polygon_that_was_made_to_cross_itself_is_kept_in_two_parts(interactive: InteractiveSegmenter) -> None:
    polygons = Project((make_image_tag("$image", ("A",), shape="polygon", status_field="status"),), PROJECT.options)
    first, *others = interactive.answer(task(), polygons, typed("4")).result[:-1]
    value = first["value"] | {"points": [[0, 0], [40, 40], [40, 0], [0, 40]]}
    drawn = [first | {"origin": "prediction-changed", "value": value}, *others]
    draft = {"result": drawn, "updated_at": "2026-11-20T12:00:01Z"}
    answer = interactive.answer(task(drafts=[draft]), polygons, typed("4", "3"))
    assert first["id"] in {item["id"] for item in answer.result}
    assert ", 2 of them kept" in status_text(answer)


@pytest.mark.parametrize("context", [None, "text", {}, {"result": []}, typed(), {"result": [{"type": "choices"}]}])
def test_calls_without_commands_or_prompts_get_no_suggestions(
    interactive: InteractiveSegmenter, context: object
) -> None:
    (answer,) = answer_all(interactive, [task()], PROJECT, context)
    assert answer.as_json() == {"result": [], "score": 0.0, "model_version": "suggestions"}


def test_an_unreadable_image_gets_no_suggestions(interactive: InteractiveSegmenter) -> None:
    (answer,) = answer_all(interactive, [Task(1, {"image": "gone.jpg"})], PROJECT, typed("3"))
    assert answer.result == []


def test_a_change_needs_neither_the_model_nor_the_image(tmp_path: Path, clock: Clock) -> None:
    @dataclass
    class CountingSource(ImageLoader):
        fetched: int = 0

        def __post_init__(self) -> None:
            super().__init__(FetchPolicy(), None)

        def fetch(self, reference: object, task_id: int | None = None) -> bytes:
            self.fetched += 1
            return super().fetch(reference, task_id)

    backbone, source = CountingBackbone(), CountingSource()
    segmenter = Segmenter(backbone, PRESETS["merge"])
    cache = TreeCache(tmp_path, 1 << 24)
    tree_service = TreeService(InProcessModel(segmenter, DecodeLimits()), cache)
    busy = InteractiveSegmenter(Predictor(tree_service, source, ProjectOptions()), SessionStore(clock))
    busy.answer(task(), PROJECT, typed("3"))
    once = source.fetched
    for context in (typed("4"), typed("4", "finer"), typed("k=2"), clicks("Finer", (0.1, 0.1))):
        busy.answer(task(), PROJECT, context)
    assert (len(backbone.calls), source.fetched) == (1, once)


# Pointing


def test_a_click_selects_at_the_granularity_of_the_project(interactive: InteractiveSegmenter) -> None:
    answer = interactive.answer(task(), PROJECT, clicks("Select", (0.1, 0.1)))
    ((label, mask),) = regions(answer).values()
    assert (label, mask[2, 2]) == ("A", True)
    assert areas(answer) == approximately(600)
    assert status_text(answer) == "→ Region selected"


def test_a_click_selects_at_the_granularity_typed_last(interactive: InteractiveSegmenter) -> None:
    interactive.answer(task(), PROJECT, typed("1"))
    assert areas(interactive.answer(task(), PROJECT, clicks("Select", (0.1, 0.1)))) == [2400]


def test_the_typed_granularity_is_read_from_the_draft_after_a_restart(interactive: InteractiveSegmenter) -> None:
    draft_regions = {"result": typed("1", "nonsense")["result"], "updated_at": "2026-11-20T12:00:00Z"}
    assert areas(interactive.answer(task(drafts=[draft_regions]), PROJECT, clicks("Select", (0.1, 0.1)))) == [2400]


def test_more_clicks_extend_one_region_and_others_exclude(interactive: InteractiveSegmenter) -> None:
    places = (0.1, 0.1), (0.9, 0.1)
    one, two = (interactive.answer(task(), PROJECT, clicks("Select", *places[:count])) for count in (1, 2))
    assert regions(one).keys() == regions(two).keys()
    assert areas(one) == approximately(600)
    assert areas(two) == approximately(1200)
    without = together(clicks("Select", *places), clicks("Select", (0.9, 0.1), start=2, is_positive=False))
    assert areas(interactive.answer(task(), PROJECT, without)) == approximately(600)


def test_a_segment_with_clicks_of_both_kinds_is_divided(interactive: InteractiveSegmenter) -> None:
    beside = clicks("Select", (0.4, 0.2), start=1, is_positive=False)
    ((_, mask),) = regions(interactive.answer(task(), PROJECT, together(clicks("Select", (0.1, 0.2)), beside))).values()
    assert (mask[8, 6], mask[8, 24]) == (True, False)
    assert not mask[:, 30:].any()


@pytest.mark.parametrize(("label", "given"), [("Car", "Car"), ("Bus", "A")])
def test_a_point_with_a_semantic_label_selects_a_region_with_it(
    interactive: InteractiveSegmenter, label: str, given: str
) -> None:
    ((chosen, _),) = regions(interactive.answer(task(), PROJECT, clicks(label, (0.1, 0.1)))).values()
    assert chosen == given


def test_a_point_or_a_box_with_a_label_of_the_task_selects_a_region_with_it(interactive: InteractiveSegmenter) -> None:
    control = replace(IMAGE_TAG.controls[0], task_labels="$names")
    project = replace(PROJECT, image_tags=(replace(IMAGE_TAG, controls=(control,)),))
    with_labels = replace(task(), data={"image": IMAGE, "names": [{"value": "Bus"}]})
    ((chosen, _),) = regions(interactive.answer(with_labels, project, clicks("Bus", (0.1, 0.1)))).values()
    value = {"x": 60, "y": 60, "width": 30, "height": 30, "rectanglelabels": ["Bus"]}
    box = {"result": [{"id": "b", "type": "rectanglelabels", "value": value}]}
    boxed = {name for name, _ in regions(interactive.answer(with_labels, project, box)).values()}
    assert (chosen, boxed) == ("Bus", {"Bus"})


def test_finer_splits_the_region_on_the_screen_and_keeps_its_id(interactive: InteractiveSegmenter) -> None:
    whole = interactive.answer(task(), PROJECT, typed("1"))
    (name,) = regions(whole)
    answer = interactive.answer(task(drafts=[draft(whole)]), PROJECT, clicks("Finer", (0.1, 0.1)))
    assert name in regions(answer)
    assert (len(regions(answer)), sum(areas(answer)), deleted(answer)) == (2, 2400, set())


def test_clicks_that_are_sent_again_are_not_applied_twice(interactive: InteractiveSegmenter, clock: Clock) -> None:
    interactive.answer(task(), PROJECT, typed("1"))
    once = interactive.answer(task(), PROJECT, clicks("Finer", (0.1, 0.1)))
    clock.now += 2
    twice = interactive.answer(task(), PROJECT, clicks("Finer", (0.1, 0.1), (0.1, 0.1)))
    assert (len(regions(once)), len(regions(twice))) == (2, 3)
    assert sum(areas(twice)) == 2400


def test_accepted_suggestions_count_before_the_draft_is_saved(interactive: InteractiveSegmenter, clock: Clock) -> None:
    interactive.answer(task(), PROJECT, typed("1"))
    interactive.answer(task(), PROJECT, clicks("Finer", (0.1, 0.1)))
    clock.now += 2
    again = interactive.answer(task(), PROJECT, clicks("Finer", (0.1, 0.1), start=7))
    assert (len(regions(again)), sum(areas(again))) == (3, 2400)  # the part under the click is split


def test_a_later_draft_precedes_the_last_interaction(interactive: InteractiveSegmenter, clock: Clock) -> None:
    whole = interactive.answer(task(), PROJECT, typed("1"))
    interactive.answer(task(), PROJECT, clicks("Finer", (0.1, 0.1)))  # and rejected
    rejected = draft(whole, saved=1)
    again = interactive.answer(task(drafts=[rejected]), PROJECT, clicks("Finer", (0.1, 0.1), start=7))
    assert sum(areas(again)) == 2400


def test_long_after_an_interaction_the_documents_count(
    interactive: InteractiveSegmenter, predictor: Predictor, clock: Clock
) -> None:
    interactive.answer(task(), PROJECT, typed("1"))
    clock.now += 60
    predictions = [prediction.as_json() for prediction in predictor.predict(task(), PROJECT)]
    answer = interactive.answer(task(predictions=predictions), PROJECT, clicks("Coarser", (0.1, 0.1)))
    default = {region["id"] for region in predictions[-1]["result"]}
    assert {*regions(answer), *deleted(answer)} < default
    assert (len(regions(answer)), len(deleted(answer))) == (1, 1)


def test_merge_joins_the_regions_at_the_clicks(interactive: InteractiveSegmenter) -> None:
    four = interactive.answer(task(), PROJECT, typed("4"))
    first = interactive.answer(task(), PROJECT, clicks("Merge", (0.1, 0.1)))
    assert (regions(first), status_text(first)) == ({}, "→ Click on one more region to merge")
    both = interactive.answer(task(), PROJECT, clicks("Merge", (0.1, 0.1), (0.9, 0.9)))
    assert areas(both) == approximately(600, 600, 1200)
    assert len(deleted(both)) == 1
    assert {*regions(both), *deleted(both)} == {*regions(four)}


def test_earlier_edits_stay_when_a_later_one_fails(interactive: InteractiveSegmenter) -> None:
    answer = interactive.answer(task(), PROJECT, clicks("Coarser", *[(0.1, 0.1)] * 9))
    assert areas(answer) == [2400]
    assert status_text(answer) == "→ This region cannot be made any coarser"


def test_a_box_is_segmented_as_a_crop(interactive: InteractiveSegmenter) -> None:
    answer = interactive.answer(task(), PROJECT, box("Re-segment", 25, 25, 50, 50))
    assert sum(areas(answer)) == 20 * 30
    assert len(regions(answer)) >= 4
    assert status_text(answer) == f"→ {len(regions(answer))} new regions in the box"


@pytest.mark.parametrize("label", ["Car", "Automobile"])
def test_a_box_with_a_label_of_the_project_makes_one_region(interactive: InteractiveSegmenter, label: str) -> None:
    image_tag = replace(IMAGE_TAG, names={"Automobile": "Car"})
    answer = interactive.answer(task(), replace(PROJECT, image_tags=(image_tag,)), box(label, 25, 25, 50, 50))
    ((name, mask),) = [found for found in regions(answer).values() if found[0] == "Car"]
    assert (name, int(mask.sum())) == ("Car", 20 * 30)
    assert status_text(answer) == "→ Selected: Car"


def test_a_box_with_select_makes_one_region_without_a_name(interactive: InteractiveSegmenter) -> None:
    answer = interactive.answer(task(), PROJECT, box("Select", 25, 25, 50, 50))
    assert areas(answer) == [20 * 30]
    assert status_text(answer) == "→ Region selected"


def test_a_box_splits_the_region_in_its_middle(interactive: InteractiveSegmenter) -> None:
    answers = []
    for identity, context in enumerate([box("Finer", 8, 8, 4, 4), clicks("Finer", (0.1, 0.1))]):
        interactive.answer(replace(task(), id=identity), PROJECT, typed("1"))
        answers.append(interactive.answer(replace(task(), id=identity), PROJECT, context))
    assert areas(answers[0]) == areas(answers[1])
    assert [*map(status_text, answers)] == ["→ Split into 2 regions"] * 2


def test_boxes_merge_the_regions_in_their_middles(interactive: InteractiveSegmenter) -> None:
    interactive.answer(task(), PROJECT, typed("4"))
    merged = together(box("Merge", 5, 5, 10, 10, "a"), box("Merge", 85, 5, 10, 10, "b"))
    answer = interactive.answer(task(), PROJECT, merged)
    assert status_text(answer) == "→ 2 regions merged into 1"


def test_an_image_that_fails_keeps_no_other_image_from_an_answer(
    interactive: InteractiveSegmenter, caplog: pytest.LogCaptureFixture
) -> None:
    broken = make_image_tag("$back", name="back", control="other")
    project = replace(PROJECT, image_tags=(broken, IMAGE_TAG))
    answer = interactive.answer(task(), project, typed("4"))
    assert len(regions(answer)) == 4
    assert "image 'back' of task 1 is left out: task 1 has no image: data.back is missing" in caplog.text
    with pytest.raises(RequestError, match=r"data\.back is missing"):
        interactive.answer(task(), replace(PROJECT, image_tags=(broken,)), typed("4"))


def test_prompt_labels_are_case_insensitive(interactive: InteractiveSegmenter) -> None:
    interactive.answer(task(), PROJECT, typed("1"))
    assert len(regions(interactive.answer(task(), PROJECT, clicks("FINER", (0.1, 0.1))))) == 2


def test_interactions_of_64_images_are_kept(interactive: InteractiveSegmenter) -> None:
    for number in range(70):
        interactive.answer(replace(task(), id=number), PROJECT, typed("1"))
    old, new = (
        areas(interactive.answer(replace(task(), id=number), PROJECT, clicks("Select", (0.1, 0.1))))
        for number in (0, 69)
    )
    assert old == approximately(600)
    assert new == approximately(2400)
