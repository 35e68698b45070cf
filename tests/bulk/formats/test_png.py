import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from tests.builders.labelled import label_maps, labelled, numbered, sample
from walkcut.bulk.formats import PngFormat
from walkcut.bulk.items import ItemPrediction, RegionPrediction
from walkcut.errors import SettingsError
from walkcut.labelstudio import Region


def read(prediction: ItemPrediction) -> np.ndarray:
    (content,) = PngFormat().encode(prediction).files.values()
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "I;16"
        return np.asarray(image)


@given(label_maps)
def test_pillow_reads_the_same_segments(labels: np.ndarray) -> None:
    image = labelled(labels)
    assert read(image).tolist() == numbered(image).tolist()


def test_pillow_reads_the_sample() -> None:
    assert (read(sample()) == numbered(sample())).all()


def test_more_segments_than_a_byte_holds() -> None:
    labels = np.arange(1, 301).reshape(15, 20)
    assert read(labelled(labels)).tolist() == labels.tolist()


def test_more_segments_than_16_bits_hold_are_refused() -> None:
    nothing = Region(np.zeros((1, 1), bool), "Region", 0.0)
    image = replace(labelled(np.zeros((1, 1), np.int64)), predictions=[RegionPrediction("v", [nothing] * 65536)])
    with pytest.raises(SettingsError, match="one has 65536 regions, 65535 at most fit: ask for fewer"):
        PngFormat().encode(image)


def test_the_default_labelling_is_the_last() -> None:
    coarse, fine = labelled(np.array([[1, 1]])), labelled(np.array([[1, 2]]))
    both = replace(coarse, predictions=[*coarse.predictions, *fine.predictions])
    assert read(both).tolist() == [[1, 2]]


def test_the_numbers_are_explained(tmp_path: Path) -> None:
    records = [PngFormat().encode(labelled(np.array([[0, 1], [2, 2]]), key)).record for key in ("a/b", "c")]
    PngFormat().assemble(iter(records), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    assert [line["file"] for line in lines] == ["a/b.png", "c.png"]
    assert lines[0] == {
        "key": "a/b",
        "image": "a/b.jpg",
        "file": "a/b.png",
        "width": 2,
        "height": 2,
        "model_version": "v1",
        "segments": [
            {"id": 1, "label": "Background", "score": 1 / 64},
            {"id": 2, "label": "Region B", "score": 2 / 64},
        ],
    }
