import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from label_studio_sdk.converter.brush import decode_rle

from tests.builders.predictions import IMAGE_TAG, expected_label_map, label_maps, make_prediction, sample_prediction
from walkcut.bulk.formats import LabelStudioFormat
from walkcut.bulk.formats.labelstudio import SHARD_BYTES, SHARD_TASKS
from walkcut.bulk.items import ItemPrediction, RegionPrediction
from walkcut.errors import RequestError
from walkcut.labelstudio.predictions import Region

FORMAT = LabelStudioFormat(IMAGE_TAG)
TASK: dict[str, Any] = {"data": {"image": "a.jpg"}, "predictions": [{"result": [], "score": 0.5, "model_version": "v"}]}
TASK_BYTES = len(json.dumps(TASK, separators=(",", ":")))


def shards(folder: Path) -> dict[str, list[Any]]:
    return {path.name: json.loads(path.read_text()) for path in sorted(folder.iterdir())}


def sdk_mask(region: dict[str, Any]) -> np.ndarray:
    shape = region["original_height"], region["original_width"], 4
    return decode_rle(region["value"]["rle"]).reshape(shape)[..., 3] > 0


def assert_the_sdk_reads(image: ItemPrediction) -> None:
    (prediction,) = FORMAT.encode(image).record["predictions"]
    for region, segment in zip(prediction["result"], image.predictions[-1].regions, strict=True):
        assert (sdk_mask(region) == segment.mask).all()
        assert region["value"]["brushlabels"] == [segment.label]


@given(label_maps)
def test_label_studio_reads_the_same_masks(labels: np.ndarray) -> None:
    assert_the_sdk_reads(make_prediction(labels))


def test_label_studio_reads_the_sample() -> None:
    assert expected_label_map(sample_prediction()).max() > 5
    assert_the_sdk_reads(sample_prediction())


def test_a_task_has_its_predictions_in_order(tmp_path: Path) -> None:
    halves = np.array([[True, False]])
    fine = RegionPrediction("v-fine", [Region(halves, "Region", 0.5), Region(~halves, "Region B", 1.0)])
    auto = RegionPrediction("v", [Region(halves | True, "Background", 0.25)])
    image = ItemPrediction(
        make_prediction(np.array([[1, 1]]), data={"image": "a.jpg", "page": 7}).item, (1, 2), [fine, auto]
    )
    FORMAT.assemble([FORMAT.encode(image).record], tmp_path)
    ((task,),) = shards(tmp_path).values()
    assert task["data"] == {"image": "a.jpg", "page": 7}
    assert [(prediction["model_version"], prediction["score"]) for prediction in task["predictions"]] == [
        ("v-fine", 0.75),
        ("v", 0.25),
    ]
    regions = [region for prediction in task["predictions"] for region in prediction["result"]]
    assert [region["score"] for region in regions] == [0.5, 1.0, 0.25]
    assert {(region["from_name"], region["to_name"], region["type"]) for region in regions} == {
        ("brush", "image", "brushlabels")
    }
    first, second, third = (region["id"] for region in regions)
    assert first == third != second


def test_a_task_without_its_image_is_refused() -> None:
    with pytest.raises(RequestError, match=r"data\.image is missing"):
        FORMAT.encode(make_prediction(np.array([[1]]), data={"text": "a.jpg"}))


def test_files_stay_below_label_studios_limits() -> None:
    assert SHARD_BYTES <= 200 * 10**6
    assert SHARD_TASKS <= 250_000


@pytest.mark.parametrize(("tasks", "counts"), [(0, []), (1, [1]), (3, [3]), (4, [3, 1]), (7, [3, 3, 1])])
def test_files_have_a_maximum_number_of_tasks(tasks: int, counts: list[int], tmp_path: Path) -> None:
    LabelStudioFormat(IMAGE_TAG, shard_tasks=3).assemble((TASK for _ in range(tasks)), tmp_path)
    files = shards(tmp_path)
    assert [len(shard) for shard in files.values()] == counts
    assert list(files) == [f"tasks-0000{number}.json" for number in range(1, len(counts) + 1)]
    assert all(task == TASK for shard in files.values() for task in shard)


@pytest.mark.parametrize("spare", [0, 1, -1])
def test_files_have_a_maximum_size(spare: int, tmp_path: Path) -> None:
    limit = 2 * TASK_BYTES + len("[\n,\n\n]\n") + spare
    LabelStudioFormat(IMAGE_TAG, shard_bytes=limit).assemble([TASK] * 4, tmp_path)
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert max(sizes) <= limit
    assert len(sizes) == (2 if spare >= 0 else 4)


def test_a_task_larger_than_the_limit_has_its_own_file(tmp_path: Path) -> None:
    LabelStudioFormat(IMAGE_TAG, shard_bytes=10).assemble([TASK] * 2, tmp_path)
    assert [len(shard) for shard in shards(tmp_path).values()] == [1, 1]


def test_files_of_a_longer_run_are_deleted_and_others_kept(tmp_path: Path) -> None:
    for name in ("tasks-mine.json", "tasks-1.json"):
        (tmp_path / name).write_text("[]")
    one_per_file = LabelStudioFormat(IMAGE_TAG, shard_tasks=1)
    one_per_file.assemble([TASK] * 3, tmp_path)
    one_per_file.assemble([TASK], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tasks-00001.json", "tasks-1.json", "tasks-mine.json"]
    one_per_file.assemble([], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tasks-1.json", "tasks-mine.json"]
