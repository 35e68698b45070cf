"""Networks in ONNX files: what they give, the sizes that they see, and what is wrong with others."""

import sys
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from torch import Tensor

from tests.builders.onnx_files import write_network
from tests.builders.scenes import agreement, quarter_labels, quarters
from walkcut.backbones import Backbone, FeatureKind, load_backbone
from walkcut.backbones.classical import ClassicalBackbone
from walkcut.backbones.hed import RULE
from walkcut.backbones.onnx_model import OnnxBackbone, load_onnx
from walkcut.errors import SegmentationError, SettingsError
from walkcut.hierarchy.granularity import Segments
from walkcut.hierarchy.merge_rule import MergeRule
from walkcut.segmentation.segmenter import load_segmenter

KINDS: tuple[FeatureKind, ...] = ("attention_maps", "feature_map", "contour")
RED = torch.tensor([255, 0, 0], dtype=torch.uint8).expand(20, 30, 3)
MERGING: frozenset[FeatureKind] = frozenset({"contour", "feature_map"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.onnx"


def make_image(height: int, width: int) -> UInt8[Tensor, "y x 3"]:
    return torch.tensor(quarters(height, width))


def test_an_onnx_file_is_a_backbone_by_its_path(path: Path) -> None:
    backbone = load_backbone(str(write_network(path)))
    assert isinstance(backbone, Backbone)
    assert backbone.provides == ClassicalBackbone.provides


def test_the_network_sees_colours_from_0_to_1_in_the_order_red_green_blue(path: Path) -> None:
    backbone = load_onnx(write_network(path))
    red, green = (backbone.extract(image, frozenset({"contour"})).contour for image in (RED, RED[..., [1, 0, 2]]))
    assert red is not None
    assert green is not None
    torch.testing.assert_close(red, torch.full((20, 30), 4.0).sigmoid())
    torch.testing.assert_close(green, torch.full((20, 30), -4.0).sigmoid())


@pytest.mark.parametrize("kinds", [kinds for count in range(4) for kinds in combinations(KINDS, count)])
def test_only_requested_kinds_are_returned(kinds: Sequence[FeatureKind], path: Path) -> None:
    features = load_onnx(write_network(path)).extract(make_image(20, 30), frozenset(kinds))
    given = (bool(features.attention_maps), features.feature_map is not None, features.contour is not None)
    assert given == tuple(kind in kinds for kind in KINDS)
    assert (features.embedding is not None) == (set(kinds) >= MERGING)


def test_what_the_network_does_not_give_is_that_of_the_classical_model(path: Path) -> None:
    image, classical = make_image(40, 60), ClassicalBackbone()
    expected = classical.extract(image, MERGING)
    assert expected.contour is not None
    assert expected.feature_map is not None
    contour_only = load_onnx(write_network(path, ["contour"])).extract(image, MERGING)
    assert contour_only.contour is not None
    assert contour_only.feature_map is not None
    assert torch.equal(contour_only.feature_map, expected.feature_map)
    assert not torch.equal(contour_only.contour, expected.contour)
    assert (contour_only.embedding, contour_only.merge_rule) == (None, RULE)
    features_only = load_onnx(write_network(path, ["features"])).extract(image, MERGING)
    assert features_only.contour is not None
    assert torch.equal(features_only.contour, expected.contour)
    assert features_only.embedding is not None
    assert features_only.embedding.shape == (32, 40, 60)
    assert features_only.merge_rule == MergeRule()


def test_features_alone_are_the_networks(path: Path) -> None:
    feature_map = load_onnx(write_network(path)).extract(make_image(40, 60), frozenset({"feature_map"})).feature_map
    assert feature_map is not None
    assert feature_map.shape == (40, 10, 15)


@pytest.mark.parametrize(
    ("sides", "multiple", "size", "seen"),
    [
        (("h", "w"), "1", (300, 200), (300, 200)),
        (("h", "w"), "1", (1000, 500), (512, 256)),
        (("h", "w"), "1", (3, 2000), (16, 512)),
        (("h", "w"), "32", (100, 70), (96, 64)),
        (("h", "w"), "32", (16, 16), (32, 32)),
        (("h", "w"), "14", (1000, 1000), (504, 504)),
        ((64, 128), "1", (300, 200), (64, 128)),
        ((64, "w"), "8", (300, 201), (64, 200)),
    ],
)
def test_the_size_that_the_network_sees(
    sides: tuple[int | str, int | str], multiple: str, size: tuple[int, int], seen: tuple[int, int], path: Path
) -> None:
    backbone = load_onnx(write_network(path, sides=sides, metadata={"multiple": multiple}))
    assert backbone.network.seen_size(*size) == seen
    assert backbone.network.run(make_image(*size))["contour"].shape == (1, *seen)


def test_the_weight_of_the_features_is_read_from_the_file(path: Path) -> None:
    rule = load_onnx(write_network(path, metadata={"weight": "0.2"})).extract(make_image(20, 30), MERGING).merge_rule
    assert (rule.embedding, rule.histogram) == (0.2, RULE.histogram)


def test_it_segments_and_gives_the_same_tree_again(path: Path) -> None:
    write_network(path, ["features"])
    first, second = (load_segmenter(str(path)).segment(quarters(96, 128)) for _ in range(2))
    assert agreement(first.labels(Segments(4)), quarter_labels(96, 128)) > 0.95
    assert np.array_equal(first.hierarchy.costs, second.hierarchy.costs)


def test_the_version_changes_with_the_file_and_the_settings(path: Path) -> None:
    versions = []
    for scale, metadata in ((4, {}), (5, {}), (4, {"multiple": "2"}), (4, {"weight": "2"})):
        versions.append(load_onnx(write_network(path, scale=scale, metadata=metadata)).version)
    assert len(set(versions)) == 4
    assert load_onnx(write_network(path, scale=4)).version == versions[0]
    backbone = load_onnx(path)
    assert OnnxBackbone(backbone.network, ClassicalBackbone(working_side=128)).version != backbone.version


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outputs": ["edges"]}, r"net\.onnx gives edges: name an output contour or features"),
        (
            {"colours": 1},
            r"net\.onnx takes image \[1, 1, 'height', 'width'\] of .*must take one image, 1×3×height×width",
        ),
        ({"contours": 2}, r"net\.onnx gave contour of 1×2×76×100: it must be 1×1×height×width"),
        ({"scale": np.nan}, r"net\.onnx gave contour that is not finite: check its weights"),
        ({"metadata": {"multiple": "some"}}, r"has the metadata multiple='some': write a number of at least 0"),
        ({"metadata": {"multiple": "1.5"}}, r"has the metadata multiple=1\.5: write an integer of at least 1"),
        ({"metadata": {"weight": "-1"}}, r"has the metadata weight='-1': write a number of at least 0"),
        ({"sides": (2, 2)}, r"net\.onnx cannot run on 2×2 pixels .*: export it with dynamic height and width"),
    ],
)
def test_what_is_wrong_with_a_network_is_named(options: dict[str, Any], message: str, path: Path) -> None:
    with pytest.raises(SettingsError, match=message):
        load_onnx(write_network(path, **options))


def test_another_file_is_refused(path: Path) -> None:
    with pytest.raises(SettingsError, match=r"net\.onnx cannot be read .*: give the path of an ONNX file"):
        load_onnx(path)
    path.write_bytes(b"no network")
    with pytest.raises(SettingsError, match=r"net\.onnx is no ONNX network that can be loaded .*: export it again"):
        load_onnx(path)


def test_what_is_wrong_with_one_image_is_named(path: Path) -> None:
    backbone = load_onnx(write_network(path, ["contour"], sigmoid=False))
    with pytest.raises(SegmentationError, match=r"gave a contour from 4 to 4: .* end the network in a sigmoid"):
        backbone.extract(RED, frozenset({"contour"}))


def test_the_extra_that_is_missing_is_named(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(SettingsError, match=r"onnxruntime is not installed: pip install 'walkcut\[onnx\]'"):
        load_onnx(path)
