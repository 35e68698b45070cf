"""Images uploaded to a real Label Studio get brush masks from a real walkcut server."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from tests.builders.bsds500 import photographs
from tests.e2e import images
from tests.e2e.browser import Editor
from tests.e2e.expected import expected_masks, granularity_of
from tests.e2e.label_studio import LabelStudio

pytestmark = pytest.mark.e2e

N_LEVELS = 4  # coarse, medium, fine and the default
ABSENT = "absent.jpg"  # an image that Label Studio has lost


@dataclass(frozen=True)
class Preannotated:
    """A project whose predictions have been retrieved: the image of each good task, and the bad tasks."""

    project: int
    good: dict[int, bytes]
    bad: list[int]


@pytest.fixture(scope="module")
def preannotated(label_studio: LabelStudio, backend: str, label_config: str) -> Preannotated:
    """Good images between bad ones, pre-annotated in one go."""
    project = label_studio.create_project("Pre-annotation", label_config)
    broken = label_studio.upload(project, "broken.jpg", images.sample()[:300])
    uploads = [("turned.jpg", images.exif_turned()), ("transparent.png", images.transparent())]
    uploads += [(path.name, path.read_bytes()) for path in photographs(1)]
    good = {label_studio.upload(project, name, content): content for name, content in uploads}
    (absent,) = label_studio.import_tasks(project, [{"data": {"image": f"/data/upload/{project}/{ABSENT}"}}])
    (sample,) = label_studio.import_tasks(project, [images.sample_task()])
    good[sample] = images.sample()
    label_studio.attach_backend(project, backend)
    label_studio.retrieve_predictions(project)
    return Preannotated(project, good, [broken, absent])


@pytest.fixture(scope="module")
def default_version(preannotated: Preannotated, backend: str, label_config: str) -> str:
    """The model version that the backend's /setup reports."""
    setup = {"project": f"{preannotated.project}.0", "schema": label_config, "hostname": "", "access_token": ""}
    return str(requests.post(f"{backend}/setup", json=setup, timeout=3).json()["model_version"])


def masks(prediction: dict[str, Any]) -> list[images.Mask]:
    return [images.region_mask(region) for region in prediction["result"]]


def ids(some: Sequence[dict[str, Any]]) -> list[int]:
    return [int(document["id"]) for document in some]


def as_set(some: Sequence[images.Mask]) -> set[tuple[tuple[int, ...], bytes]]:
    return {(mask.shape, mask.tobytes()) for mask in some}


def test_each_image_has_a_prediction_for_each_level(label_studio: LabelStudio, preannotated: Preannotated) -> None:
    for task in preannotated.good:
        versions = [prediction["model_version"] for prediction in label_studio.predictions(task)]
        assert 2 <= len(versions) == len(set(versions)) <= N_LEVELS  # levels with the same regions share one


def test_the_newest_prediction_is_the_default_level(
    label_studio: LabelStudio, preannotated: Preannotated, default_version: str
) -> None:
    for task in preannotated.good:
        *others, newest = label_studio.predictions(task)
        assert newest["model_version"] == default_version
        assert default_version not in {other["model_version"] for other in others}


def test_finer_levels_have_more_regions(label_studio: LabelStudio, preannotated: Preannotated) -> None:
    for task in preannotated.good:
        found = {granularity_of(p["model_version"]): len(p["result"]) for p in label_studio.predictions(task)}
        counts = [found[level] for level in ("coarse", "medium", "fine") if level in found]
        assert counts == sorted(counts)
        assert 2 <= min(found.values()) < max(found.values())


def test_masks_are_disjoint_and_as_large_as_the_image(label_studio: LabelStudio, preannotated: Preannotated) -> None:
    for task, image in preannotated.good.items():
        width, height = images.natural_size(image)
        for prediction in label_studio.predictions(task):
            stack = np.stack(masks(prediction))
            assert stack.shape[1:] == (height, width)
            assert stack.any(axis=(1, 2)).all()
            assert stack.sum(axis=0).max() == 1


def test_predictions_of_a_task_share_their_ids_and_regions_have_a_score(
    label_studio: LabelStudio, preannotated: Preannotated
) -> None:
    seen = set[str]()
    for task in preannotated.good:
        results = [prediction["result"] for prediction in label_studio.predictions(task)]
        longest, *others = sorted(([region["id"] for region in result] for result in results), key=len, reverse=True)
        assert all(shorter == longest[: len(shorter)] for shorter in others)
        assert len({*longest} - seen) == len(longest)
        seen |= {*longest}
        assert all(0 <= region["score"] <= 1 for result in results for region in result)


def test_masks_are_what_walkcut_computes(label_studio: LabelStudio, preannotated: Preannotated, tmp_path: Path) -> None:
    for number, (task, image) in enumerate(preannotated.good.items()):
        predictions = label_studio.predictions(task)
        prediction = predictions[number % len(predictions)]  # each image at a level of its own
        expected = expected_masks(image, prediction["model_version"], tmp_path)
        assert as_set(masks(prediction)) == as_set(expected)


def test_an_image_that_cannot_be_had_has_no_prediction(label_studio: LabelStudio, preannotated: Preannotated) -> None:
    assert [label_studio.predictions(task) for task in preannotated.bad] == [[], []]


def test_retrieving_again_adds_nothing(label_studio: LabelStudio, preannotated: Preannotated) -> None:
    before = {task: ids(label_studio.predictions(task)) for task in preannotated.good}
    label_studio.retrieve_predictions(preannotated.project)
    assert {task: ids(label_studio.predictions(task)) for task in preannotated.good} == before


def test_the_labelling_screen_shows_the_regions(
    label_studio: LabelStudio, editor: Editor, preannotated: Preannotated, artifacts: Path
) -> None:
    for task, image in preannotated.good.items():
        editor.open_task(preannotated.project, task, n_tabs=2)
        editor.screenshot(artifacts / f"preannotation-{task}.png")
        stored = {p["model_version"]: len(p["result"]) for p in label_studio.predictions(task)}
        *_, default = stored.values()
        assert {tab.model_version: tab.n_regions for tab in editor.tabs()} == stored
        assert len(editor.regions()) == default
        assert editor.image_size() == images.natural_size(image)
        assert [error for error in editor.console_errors() if ABSENT not in error] == []


def test_opening_a_task_without_its_image_harms_nothing(label_studio: LabelStudio, preannotated: Preannotated) -> None:
    for task in preannotated.bad:
        assert label_studio.task(task)["predictions"] == []


def test_label_studio_says_why_a_config_is_refused(label_studio: LabelStudio, backend: str) -> None:
    choices = '<Choices name="c" toName="image"><Choice value="a"/></Choices>'
    config = f'<View><Image name="image" value="$image"/>{choices}</View>'
    project = label_studio.create_project("Refused", config)
    with pytest.raises(RuntimeError, match="400 Client Error: walkcut needs a control that takes regions"):
        label_studio.attach_backend(project, backend)
