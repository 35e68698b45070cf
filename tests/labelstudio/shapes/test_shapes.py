from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.masks import any_labels, mask_of, masks
from walkcut.errors import BrushError
from walkcut.labelstudio import shapes
from walkcut.masks.components import components

BAR = mask_of("......", ".###..", "......")


@pytest.mark.parametrize(
    ("result_type", "value"),
    [
        ("rectangle", {"x": 100 / 6, "y": 100 / 3, "width": 50, "height": 100 / 3}),
        ("polygonlabels", {"points": [[100 / 6, 34], [66.7, 34], [66.7, 66], [100 / 6, 66]]}),
        ("ellipselabels", {"x": 250 / 6, "y": 50, "radiusX": 25, "radiusY": 20}),
        ("keypointlabels", {"x": 250 / 6, "y": 50, "width": 1}),
        ("magicwand", shapes.encode("bitmask", [BAR], 0)[0]),
    ],
)
def test_types_of_results_are_read_as_their_shape(result_type: str, value: dict[str, Any]) -> None:
    renamed = {"maskDataURL" if name == "imageDataURL" else name: part for name, part in value.items()}
    mask = shapes.decode(result_type, renamed, BAR.shape)
    assert mask[1, 2]
    assert not (mask & ~BAR).any()


def test_the_types_of_results_are_those_of_the_editors_control_tags() -> None:
    assert set(shapes.SHAPE_OF_TYPE) == {
        *("brush", "brushlabels", "magicwand", "bitmask", "bitmasklabels", "polygon", "polygonlabels", "vector"),
        *("vectorlabels", "rectangle", "rectanglelabels", "ellipse", "ellipselabels", "keypoint", "keypointlabels"),
    }


@given(masks.filter(np.any), st.sampled_from([name for name, shape in shapes.SHAPES.items() if shape.is_exact]))
def test_exact_shapes_keep_every_pixel(mask: np.ndarray, shape: str) -> None:
    (value,) = shapes.encode(shape, [mask], 1.0)
    assert (shapes.decode(shape, value, mask.shape) == mask).all()


@given(
    any_labels.filter(np.any), st.sampled_from([name for name, shape in shapes.SHAPES.items() if shape.is_connected])
)
def test_outlines_without_tolerance_keep_every_pixel(labels: np.ndarray, shape: str) -> None:
    parts = [part for region in np.unique(labels) for part in components(labels == region)]
    values = shapes.encode(shape, parts, 0.0)
    assert all(
        (shapes.decode(shape, value, labels.shape) == part).all() for value, part in zip(values, parts, strict=True)
    )


@given(any_labels.filter(np.any), st.sampled_from([0.5, 1.0, 3.0]))
def test_a_partition_stays_a_partition(labels: np.ndarray, tolerance: float) -> None:
    parts = [part for region in np.unique(labels) for part in components(labels == region)]
    values = shapes.encode("polygon", parts, tolerance)
    decoded = [shapes.decode("polygon", value, labels.shape) for value in values]
    assert np.sum(decoded, axis=0).max() <= 1
    assert all(shapely.Polygon(value["points"]).is_valid for value in values)


@pytest.mark.parametrize("shape", shapes.writable_shapes())
def test_values_are_json_without_a_label(shape: str) -> None:
    (value,) = shapes.encode(shape, [BAR], 1.0)
    assert shapes.decode(shape, value, BAR.shape).any()
    kinds = {type(part) for part in value.values()}
    assert kinds <= {str, list, float, int, bool}
    assert not any(name.endswith("labels") for name in value)


@pytest.mark.parametrize("shape", shapes.writable_shapes())
def test_no_masks_have_no_values(shape: str) -> None:
    assert shapes.encode(shape, [], 1.0) == []


def test_an_empty_mask_is_refused() -> None:
    with pytest.raises(BrushError, match="mask 1 covers no pixel: leave it out"):
        shapes.encode("brush", [BAR, np.zeros_like(BAR)], 1.0)


def test_key_points_are_not_written() -> None:
    with pytest.raises(BrushError, match="cannot be written as keypoint: use one of brush, bitmask, polygon, vector, "):
        shapes.encode("keypoint", [BAR], 1.0)
