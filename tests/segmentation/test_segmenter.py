from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from torch import Tensor

from tests.builders.scenes import agreement, quarter_labels, quarters
from tests.builders.tiny_diffusion import write_folder
from walkcut.backbones import AttentionMap, FeatureKind, ImageFeatures, load_backbone
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree, build_tree
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.segmentation.algorithms.pamr import Pamr
from walkcut.segmentation.algorithms.recursive_ncut import FixedThreshold
from walkcut.segmentation.methods.hierarchical import NCut
from walkcut.segmentation.presets import PRESETS, Preset
from walkcut.segmentation.segmenter import Segmenter, load_segmenter, refine_tree


@dataclass(frozen=True)
class OnlyAttention:
    """A backbone whose patches attend to themselves only, and that ran short of memory."""

    version: str = "maps-1"
    provides: frozenset[FeatureKind] = frozenset({"attention_maps"})

    def extract(self, image: UInt8[Tensor, "y x 3"], kinds: frozenset[FeatureKind]) -> ImageFeatures:
        return ImageFeatures(attention_maps=(AttentionMap((2, 2), torch.eye(4)),), degradations=("attention sliced",))


@dataclass
class ShortOfMemory:
    """A method that runs out of memory a number of times."""

    times: int
    requires: frozenset[FeatureKind] = frozenset({"attention_maps"})

    def build_tree(self, features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        self.times -= 1
        if self.times >= 0:
            raise torch.OutOfMemoryError
        return NCut().build_tree(features, image)


def segmenter(method: str) -> Segmenter:
    return Segmenter(load_backbone("classical"), PRESETS[method])


METHODS = [name for name in PRESETS if name != "diffseg"]  # whose finest level is its own answer


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_quarters(method: str) -> None:
    tree = segmenter(method).segment(quarters(96, 128))
    assert tree.size == (96, 128)
    assert agreement(tree.labels(Segments(4)), quarter_labels(96, 128)) > 0.95


SEGMENTERS = {method: segmenter(method) for method in METHODS} | {
    "attention only": Segmenter(OnlyAttention(), PRESETS["ncut"])
}


@pytest.mark.parametrize("instance", SEGMENTERS.values(), ids=SEGMENTERS)
def test_descriptors_agree_across_images(instance: Segmenter) -> None:
    first, second = instance.segment(quarters(96, 128)), instance.segment(quarters(64, 64)[::-1, ::-1].copy())
    images = (first, quarter_labels(96, 128)), (second, quarter_labels(64, 64)[::-1, ::-1])
    here, there = (tree.part_descriptors(overlaps(tree, truth)) for tree, truth in images)
    distances = np.linalg.norm(here[:, None] - there, axis=2)
    assert distances.argmin(1).tolist() == [0, 1, 2, 3]
    assert distances.diagonal().max() < distances[~np.eye(4, dtype=bool)].min() / 2


def overlaps(tree: CutTree, truth: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(tree.leaves[truth == part], minlength=tree.hierarchy.leaf_count) for part in range(4)])


@pytest.mark.parametrize("method", PRESETS)
@pytest.mark.parametrize("size", [(16, 16), (16, 260), (131, 17), (257, 255)], ids=str)
def test_any_size_and_aspect_gives_a_tree_of_that_size(method: str, size: tuple[int, int]) -> None:
    tree = segmenter(method).segment(quarters(*size))
    assert tree.size == size
    assert tree.segment_count(Level.FINE) == tree.labels(Level.FINE).max() + 1
    assert np.linalg.norm(tree.segment_descriptors(tree.segment_of(Level.FINE)), axis=1) == pytest.approx(1)


@pytest.mark.parametrize("method", PRESETS)
def test_an_image_of_one_colour_is_no_error(method: str) -> None:
    tree = segmenter(method).segment(np.full((40, 50, 3), 128, np.uint8))
    assert tree.labels(Level.COARSE).shape == (40, 50)
    if "merge" in method:  # the graphs of ncut and diffcut can always be cut
        assert [tree.segment_count(granularity) for granularity in (*Level, Segments(9))] == [1] * 5


@pytest.mark.parametrize("method", PRESETS)
def test_the_same_image_gives_the_same_tree(method: str) -> None:
    first, second = (segmenter(method).segment(quarters(60, 70)) for _ in range(2))
    assert first.leaves.tolist() == second.leaves.tolist()
    assert first.hierarchy.costs.tolist() == second.hierarchy.costs.tolist()
    assert first.descriptors is not None
    assert second.descriptors is not None
    assert first.descriptors.tolist() == second.descriptors.tolist()


def test_a_stored_tree_gives_the_same_labels() -> None:
    stored = CutTree.from_bytes(segmenter("merge").segment(quarters(60, 70)).to_bytes())
    for granularity in (*Level, Segments(3)):
        expected = segmenter("merge").segment(quarters(60, 70)).labels(granularity)
        assert stored.labels(granularity).tolist() == expected.tolist()


def test_the_version_changes_with_everything_that_changes_trees() -> None:
    plain = segmenter("ncut")
    variants = [
        segmenter("merge"),
        replace(plain, preset=Preset("ncut", NCut(walk_steps=2))),
        replace(plain, preset=Preset("ncut", NCut(rule=FixedThreshold(0.5)))),
        replace(plain, preset=Preset("ncut", NCut(), pamr=Pamr())),
        replace(plain, backbone=OnlyAttention()),
    ]
    assert replace(plain, preset=Preset("another name", NCut())).version == plain.version
    assert len({plain.version, *(variant.version for variant in variants)}) == 6


def test_the_version_changes_with_the_features_that_describe_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SEGMENTERS["attention only"].version
    monkeypatch.setattr("walkcut.backbones.classical._REVISION", 99)
    assert SEGMENTERS["attention only"].version != before


def test_the_error_for_missing_features_lists_other_methods() -> None:
    with pytest.raises(SettingsError, match=r"merge needs contour and feature map, .* choose one of ncut, diffseg"):
        Segmenter(OnlyAttention(), PRESETS["merge"])


def test_each_model_has_a_default_method(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", "sd14")
    assert load_segmenter("classical").preset == PRESETS["merge"]
    assert load_segmenter(str(folder)).preset == PRESETS["ncut"]


def test_a_preset_configures_the_attention(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", "sd14")
    default, paper = (load_segmenter(str(folder), name) for name in ("ncut", "dwc-table3-manc-64"))
    assert len(paper.segment(quarters(40, 40)).leaves)
    assert default.backbone.version != paper.backbone.version


def test_pamr_moves_borders_to_the_images_edges() -> None:
    image = quarters(48, 64)
    wrong = quarter_labels(48, 64)[:, ::-1].copy()
    wrong[:, 29:35] = wrong[:, 28:29]
    tree = build_tree(wrong, chain(4), dict.fromkeys((Level.COARSE, Level.MEDIUM, Level.FINE), 4))
    refined = refine_tree(tree, torch.from_numpy(image), Pamr())
    before, after = (agreement(variant.leaves, quarter_labels(48, 64)) for variant in (tree, refined))
    assert after > before


def chain(leaves: int) -> Hierarchy:
    merges = [[0, 1], *([leaves + row, row + 2] for row in range(leaves - 2))]
    return Hierarchy(np.array(merges), np.zeros(leaves - 1), np.ones(leaves - 1, bool))


def test_the_cut_moves_to_the_cpu_if_memory_runs_out(caplog: pytest.LogCaptureFixture) -> None:
    short = Segmenter(OnlyAttention(), Preset("short", ShortOfMemory(times=1)))
    assert short.segment(quarters(16, 16)).degradations == ("attention sliced", "cut on the CPU")
    assert "out of memory on cpu: cutting on the CPU" in caplog.text
    with pytest.raises(torch.OutOfMemoryError):
        Segmenter(OnlyAttention(), Preset("short", ShortOfMemory(times=2))).segment(quarters(16, 16))


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(SettingsError, match="unknown model 'magic': choose one of"):
        load_backbone("magic")
