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
from walkcut.segmentation.algorithms.ncut import FixedThreshold
from walkcut.segmentation.methods.hierarchical import NCut
from walkcut.segmentation.presets import PRESETS, Pamr, Preset
from walkcut.segmentation.segmenter import Segmenter, load_segmenter, refine_tree


@dataclass(frozen=True)
class MapsAlone:
    """A backbone that lets each patch look at itself alone, and that had to save memory."""

    version: str = "maps-1"
    provides: frozenset[FeatureKind] = frozenset({"maps"})

    def extract(self, image: UInt8[Tensor, "y x 3"], requires: frozenset[FeatureKind]) -> ImageFeatures:
        return ImageFeatures(maps=(AttentionMap((2, 2), torch.eye(4)),), degradations=("attention sliced",))


@dataclass
class ShortOfMemory:
    """A method that runs out of memory so many times."""

    times: int
    requires: frozenset[FeatureKind] = frozenset({"maps"})

    def build_tree(self, image_features: ImageFeatures, image: UInt8[Tensor, "y x 3"]) -> CutTree:
        self.times -= 1
        if self.times >= 0:
            raise torch.OutOfMemoryError
        return NCut().build_tree(image_features, image)


def segmenter(method: str) -> Segmenter:
    return Segmenter(load_backbone("classical"), PRESETS[method])


METHODS = [name for name in PRESETS if name != "diffseg"]  # which has an answer of its own, and nothing finer


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_quarters(method: str) -> None:
    tree = segmenter(method).segment(quarters(96, 128))
    assert tree.size == (96, 128)
    assert agreement(tree.labels(Segments(4)), quarter_labels(96, 128)) > 0.95


CHOSEN = {method: segmenter(method) for method in METHODS} | {"maps alone": Segmenter(MapsAlone(), PRESETS["ncut"])}


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN)
def test_the_same_thing_looks_the_same_in_another_image(chosen: Segmenter) -> None:
    first, second = chosen.segment(quarters(96, 128)), chosen.segment(quarters(64, 64)[::-1, ::-1].copy())
    images = (first, quarter_labels(96, 128)), (second, quarter_labels(64, 64)[::-1, ::-1])
    here, there = (tree.part_descriptors(overlaps(tree, truth)) for tree, truth in images)
    distances = np.linalg.norm(here[:, None] - there, axis=2)
    assert distances.argmin(1).tolist() == [0, 1, 2, 3]
    assert distances.diagonal().max() < distances[~np.eye(4, dtype=bool)].min() / 2


def overlaps(tree: CutTree, truth: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(tree.leaves[truth == part], minlength=tree.hierarchy.leaves) for part in range(4)])


@pytest.mark.parametrize("method", PRESETS)
@pytest.mark.parametrize("size", [(16, 16), (16, 260), (131, 17), (257, 255)], ids=str)
def test_any_size_and_aspect_has_a_tree_of_its_own_size(method: str, size: tuple[int, int]) -> None:
    tree = segmenter(method).segment(quarters(*size))
    assert tree.size == size
    assert tree.segments(Level.FINE) == tree.labels(Level.FINE).max() + 1
    assert np.linalg.norm(tree.segment_descriptors(Level.FINE), axis=1) == pytest.approx(1)


@pytest.mark.parametrize("method", PRESETS)
def test_a_image_of_one_colour_is_no_error(method: str) -> None:
    tree = segmenter(method).segment(np.full((40, 50, 3), 128, np.uint8))
    assert tree.labels(Level.COARSE).shape == (40, 50)
    if "merge" in method:  # the graphs of ncut and diffcut can always be cut
        assert [tree.segments(granularity) for granularity in (*Level, Segments(9))] == [1] * 5


@pytest.mark.parametrize("method", PRESETS)
def test_the_same_image_gives_the_same_tree(method: str) -> None:
    first, second = (segmenter(method).segment(quarters(60, 70)) for _ in range(2))
    assert first.leaves.tolist() == second.leaves.tolist()
    assert first.hierarchy.costs.tolist() == second.hierarchy.costs.tolist()
    assert first.segment_descriptors(Level.FINE).tolist() == second.segment_descriptors(Level.FINE).tolist()


def test_a_stored_tree_answers_as_a_new_one() -> None:
    stored = CutTree.from_bytes(segmenter("merge").segment(quarters(60, 70)).to_bytes())
    for granularity in (*Level, Segments(3)):
        anew = segmenter("merge").segment(quarters(60, 70)).labels(granularity)
        assert stored.labels(granularity).tolist() == anew.tolist()


def test_the_version_changes_with_whatever_changes_trees() -> None:
    plain = segmenter("ncut")
    others = [
        segmenter("merge"),
        replace(plain, preset=Preset("ncut", NCut(walk_steps=2))),
        replace(plain, preset=Preset("ncut", NCut(rule=FixedThreshold(0.5)))),
        replace(plain, preset=Preset("ncut", NCut(), pamr=Pamr())),
        replace(plain, backbone=MapsAlone()),
    ]
    assert replace(plain, preset=Preset("another name", NCut())).version == plain.version
    assert len({plain.version, *(other.version for other in others)}) == 6


def test_the_version_changes_with_the_features_that_describe_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    before = CHOSEN["maps alone"].version
    monkeypatch.setattr("walkcut.backbones.classical._REVISION", 99)
    assert CHOSEN["maps alone"].version != before


def test_a_model_without_the_evidence_says_which_methods_it_serves() -> None:
    with pytest.raises(SettingsError, match=r"merge needs contour and features, .* choose one of ncut, diffseg"):
        Segmenter(MapsAlone(), PRESETS["merge"])


def test_without_a_method_each_model_has_its_best(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", "sd14")
    assert load_segmenter("classical").preset == PRESETS["merge"]
    assert load_segmenter(str(folder)).preset == PRESETS["ncut"]


def test_a_recipe_says_how_the_model_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", "sd14")
    ours, published = (load_segmenter(str(folder), name) for name in ("ncut", "dwc-table3-manc-64"))
    assert len(published.segment(quarters(40, 40)).leaves)
    assert ours.backbone.version != published.backbone.version


def test_pamr_moves_borders_to_the_images_edges() -> None:
    image = quarters(48, 64)
    wrong = quarter_labels(48, 64)[:, ::-1].copy()
    wrong[:, 29:35] = wrong[:, 28:29]
    tree = build_tree(wrong, chain(4), dict.fromkeys((Level.COARSE, Level.MEDIUM, Level.FINE), 4))
    refined = refine_tree(tree, torch.from_numpy(image), Pamr())
    before, after = (agreement(each.leaves, quarter_labels(48, 64)) for each in (tree, refined))
    assert after > before


def chain(leaves: int) -> Hierarchy:
    merges = [[0, 1], *([leaves + row, row + 2] for row in range(leaves - 2))]
    return Hierarchy(np.array(merges), np.zeros(leaves - 1), np.ones(leaves - 1, bool))


def test_too_little_memory_for_the_cut_moves_it_to_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    short = Segmenter(MapsAlone(), Preset("short", ShortOfMemory(times=1)))
    assert short.segment(quarters(16, 16)).degradations == ("attention sliced", "cut on the CPU")
    assert "out of memory on cpu: cutting on the CPU" in caplog.text
    with pytest.raises(torch.OutOfMemoryError):
        Segmenter(MapsAlone(), Preset("short", ShortOfMemory(times=2))).segment(quarters(16, 16))


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(SettingsError, match="no model 'magic': choose one of"):
        load_backbone("magic")
