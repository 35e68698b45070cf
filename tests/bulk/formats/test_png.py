import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from tests.builders.predictions import expected_label_map, label_maps, make_prediction, sample_prediction
from walkcut.bulk.formats import PngFormat
from walkcut.bulk.items import ItemPrediction, RegionPrediction
from walkcut.errors import SettingsError
from walkcut.labelstudio.predictions import Region


def read(prediction: ItemPrediction) -> np.ndarray:
    (content,) = PngFormat().encode(prediction).files.values()
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "I;16"
        return np.asarray(image)


@given(label_maps)
def test_pillow_reads_the_same_regions(labels: np.ndarray) -> None:
    image = make_prediction(labels)
    assert read(image).tolist() == expected_label_map(image).tolist()


def test_pillow_reads_the_sample() -> None:
    assert (read(sample_prediction()) == expected_label_map(sample_prediction())).all()


def test_more_regions_than_a_byte_holds() -> None:
    labels = np.arange(1, 301).reshape(15, 20)
    assert read(make_prediction(labels)).tolist() == labels.tolist()


def test_more_regions_than_16_bits_hold_are_refused() -> None:
    empty = Region(np.zeros((1, 1), bool), "Region", 0.0)
    image = replace(make_prediction(np.zeros((1, 1), np.int64)), predictions=[RegionPrediction("v", [empty] * 65536)])
    with pytest.raises(SettingsError, match="one has 65536 regions, more than 65535: choose a coarser granularity"):
        PngFormat().encode(image)


def test_the_last_prediction_is_written() -> None:
    coarse, fine = make_prediction(np.array([[1, 1]])), make_prediction(np.array([[1, 2]]))
    both = replace(coarse, predictions=[*coarse.predictions, *fine.predictions])
    assert read(both).tolist() == [[1, 2]]


def test_ids_are_listed_with_their_labels(tmp_path: Path) -> None:
    records = [PngFormat().encode(make_prediction(np.array([[0, 1], [2, 2]]), key)).record for key in ("a/b", "c")]
    PngFormat().assemble(iter(records), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["a/b.png", "c.png"]
    assert lines[0] == {
        "key": "a/b",
        "image": "a/b.jpg",
        "reference": "/in/a/b.jpg",
        "file": "a/b.png",
        "width": 2,
        "height": 2,
        "model_version": "v1",
        "segments": [
            {"id": 1, "label": "Background", "score": 1 / 64},
            {"id": 2, "label": "Region B", "score": 2 / 64},
        ],
    }
