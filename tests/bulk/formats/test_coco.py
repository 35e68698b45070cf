import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from tests.builders.masks import blobs
from tests.builders.predictions import (
    CLASSES,
    NUMBERS,
    expected_label_map,
    file_contents,
    iou,
    label_maps,
    make_prediction,
    sample_prediction,
)
from walkcut.bulk.formats import CocoFormat, CocoPolygonFormat, rle
from walkcut.bulk.formats.coco import bounding_box
from walkcut.bulk.items import ItemPrediction

# pycocotools' decoder is written for numpy 1.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CATEGORIES = {name: number + 1 for name, number in NUMBERS.items()}
FORMAT = CocoFormat(CATEGORIES)
masks = arrays.arrays(np.bool_, arrays.array_shapes(min_dims=2, max_dims=2, max_side=40))


def by_pycocotools(mask: np.ndarray) -> dict[str, Any]:
    return dict(coco_masks.encode(np.asfortranarray(mask.astype(np.uint8))))


@given(masks)
def test_run_lengths_are_those_of_pycocotools_to_the_byte(mask: np.ndarray) -> None:
    assert rle.encode(mask) == by_pycocotools(mask)["counts"].decode()


@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=12))
def test_long_runs_are_those_of_pycocotools_to_the_byte(lengths: list[int]) -> None:
    mask = np.repeat(np.arange(len(lengths)) % 2 > 0, lengths)[None]
    if mask.size:
        assert rle.encode(mask) == by_pycocotools(mask)["counts"].decode()


@pytest.mark.parametrize(
    "length", [2**bits + offset for bits in (4, 5, 9, 10, 14, 15, 24, 25) for offset in (-1, 0, 1)]
)
def test_runs_around_each_number_of_characters(length: int) -> None:
    difference = np.array([0, length, 1, 2 * length, 1, length])
    mask = np.repeat([False, True] * 3, difference)[None]
    assert rle.encode(mask) == by_pycocotools(mask)["counts"].decode()


@given(masks)
def test_bounding_boxes_are_those_of_pycocotools(mask: np.ndarray) -> None:
    assert bounding_box(mask) == coco_masks.toBbox(by_pycocotools(mask)).tolist()


def assembled(images: list[ItemPrediction], out: Path, output_format: CocoFormat = FORMAT) -> dict[str, bytes]:
    outputs = [output_format.encode(image) for image in images]
    output_format.assemble((output.record for output in outputs), out)
    return {name: content for output in outputs for name, content in file_contents(output).items()}


def assert_read_alike(predictions: list[ItemPrediction], out: Path) -> None:
    """Check that pycocotools reads the masks, and that the panoptic images hold them."""
    files = assembled(predictions, out)
    coco = COCO(out / "annotations.json")
    panoptic = json.loads((out / "panoptic.json").read_bytes())
    for image_id, prediction in enumerate(predictions, 1):
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[image_id]))
        segments = prediction.predictions[-1].regions
        for annotation, segment in zip(annotations, segments, strict=True):
            assert (coco.annToMask(annotation) == segment.mask).all()
            assert annotation["area"] == segment.mask.sum()
            assert coco.cats[annotation["category_id"]]["name"] == segment.label
            assert annotation["score"] == segment.score
        image_info = panoptic["annotations"][image_id - 1]
        with Image.open(io.BytesIO(files["panoptic/" + image_info["file_name"]])) as image:
            ids = np.asarray(image).astype(int) @ [1, 256, 65536]
        assert (ids == expected_label_map(prediction)).all()
        assert [info["id"] for info in image_info["segments_info"]] == list(range(1, len(segments) + 1))
        assert [info["category_id"] for info in image_info["segments_info"]] == [
            annotation["category_id"] for annotation in annotations
        ]


@given(st.lists(label_maps, max_size=3))
def test_coco_tools_read_the_same_masks(tmp_path_factory: pytest.TempPathFactory, maps: list[np.ndarray]) -> None:
    images = [make_prediction(labels, f"{number}") for number, labels in enumerate(maps)]
    assert_read_alike(images, tmp_path_factory.mktemp("coco"))


def test_coco_tools_read_the_sample(tmp_path: Path) -> None:
    assert_read_alike([sample_prediction(), make_prediction(np.arange(1, 301).reshape(15, 20), "many")], tmp_path)


def test_the_contents_of_the_files(tmp_path: Path) -> None:
    assembled([make_prediction(np.array([[0, 1]]), "a/b"), make_prediction(np.array([[1, 1]]), "c")], tmp_path)
    instances, panoptic = (json.loads((tmp_path / f"{name}.json").read_bytes()) for name in ("annotations", "panoptic"))
    assert (
        instances["categories"]
        == panoptic["categories"]
        == [{"id": number, "name": name, "supercategory": "", "isthing": 1} for number, name in enumerate(CLASSES, 1)]
    )
    assert (
        instances["images"]
        == panoptic["images"]
        == [
            {"id": 1, "file_name": "a/b.jpg", "width": 2, "height": 1},
            {"id": 2, "file_name": "c.jpg", "width": 2, "height": 1},
        ]
    )
    assert instances["annotations"] == [
        {"id": 1, "image_id": 1, "category_id": 2, "area": 1, "bbox": [1, 0, 1, 1], "iscrowd": 0, "score": 1 / 64,
         "segmentation": {"size": [1, 2], "counts": "11"}},
        {"id": 2, "image_id": 2, "category_id": 2, "area": 2, "bbox": [0, 0, 2, 1], "iscrowd": 0, "score": 1 / 64,
         "segmentation": {"size": [1, 2], "counts": "02"}},
    ]  # fmt: skip
    assert panoptic["annotations"][0] == {
        "image_id": 1,
        "file_name": "a/b.png",
        "segments_info": [{"id": 1, "category_id": 2, "area": 1, "bbox": [1, 0, 1, 1], "iscrowd": 0, "score": 1 / 64}],
    }
    assert json.loads((tmp_path / "images.jsonl").read_text().splitlines()[0]) == {
        "id": 1, "key": "a/b", "image": "a/b.jpg", "reference": "/in/a/b.jpg", "file": "panoptic/a/b.png", "width": 2,
        "height": 1, "model_version": "v1",
    }  # fmt: skip


def test_many_annotations_are_copied_whole(tmp_path: Path) -> None:
    record = dict(FORMAT.encode(make_prediction(np.array([[0, 1]]))).record)
    record["regions"] = [{**record["regions"][0], "score": number} for number in range(2000)]
    FORMAT.assemble([record] * 10, tmp_path)
    annotations = json.loads((tmp_path / "annotations.json").read_bytes())["annotations"]
    assert [annotation["score"] for annotation in annotations] == list(range(2000)) * 10
    assert [annotation["id"] for annotation in annotations] == list(range(1, 20001))
    assert {path.name for path in tmp_path.iterdir()} == {"annotations.json", "images.jsonl", "panoptic.json"}


def polygon_instances(image: ItemPrediction, tolerance: float, out: Path) -> list[dict[str, Any]]:
    """Return the instances of one image as polygons, each with the `decoded` mask that pycocotools fills."""
    assembled([image], out, CocoPolygonFormat(CATEGORIES, tolerance))
    coco = COCO(out / "annotations.json")
    return [{**instance, "decoded": coco.annToMask(instance) > 0} for instance in coco.loadAnns(coco.getAnnIds())]


@given(label_maps)
def test_polygons_without_tolerance_are_exact(tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray) -> None:
    image = make_prediction(labels)
    instances = polygon_instances(image, 0.0, tmp_path_factory.mktemp("coco"))
    for instance, region in zip(instances, image.predictions[-1].regions, strict=True):
        assert (instance["decoded"] == region.mask).all()
        assert all(len(ring) >= 6 and len(ring) % 2 == 0 for ring in instance["segmentation"])


@pytest.mark.parametrize(
    "image", [sample_prediction(), make_prediction(np.kron(blobs(5), np.ones((8, 8), np.int64)), "holes")]
)
def test_polygons_hold_the_regions(tmp_path: Path, image: ItemPrediction) -> None:
    instances = polygon_instances(image, 1.0, tmp_path)
    for instance, region in zip(instances, image.predictions[-1].regions, strict=True):
        assert iou(instance["decoded"], region.mask) >= 0.97
        polygons = coco_masks.frPyObjects(instance["segmentation"], *image.size)
        assert instance["area"] == region.mask.sum() == pytest.approx(coco_masks.area(polygons).sum(), rel=0.01)
        assert instance["bbox"] == bounding_box(region.mask) == pytest.approx(box_of(polygons), abs=1)


def box_of(polygons: list[Any]) -> list[float]:
    """Return the box around the polygons of a region."""
    box: list[float] = coco_masks.toBbox(coco_masks.merge(polygons)).tolist()
    return box


def test_neighbouring_polygons_overlap_nowhere(tmp_path: Path) -> None:
    image = make_prediction(np.kron(blobs(5) + 1, np.ones((8, 8), np.int64)))
    masks = [instance["decoded"] for instance in polygon_instances(image, 2.0, tmp_path)]
    assert np.sum(masks, 0).max() == 1
    assert np.mean(np.sum(masks, 0)) > 0.99  # at the image's border a line may cut off pixels


def test_polygons_differ_from_run_lengths_in_the_segmentation_alone(tmp_path: Path) -> None:
    image = make_prediction(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]]), "a")
    files = [assembled([image], tmp_path / "rle"), assembled([image], tmp_path, CocoPolygonFormat(CATEGORIES, 0.0))]
    assert files[0] == files[1]
    for name in ("panoptic.json", "images.jsonl"):
        assert (tmp_path / "rle" / name).read_bytes() == (tmp_path / name).read_bytes()
    (expected,), (instance,) = (
        json.loads((folder / "annotations.json").read_bytes())["annotations"] for folder in (tmp_path / "rle", tmp_path)
    )
    (ring,) = instance.pop("segmentation")
    del expected["segmentation"]
    assert instance == expected
    assert len(ring) == 24  # four corners outside, four inside, four of the slit
