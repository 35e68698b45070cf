from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import UInt8
from torch import Tensor

from tests.builders.scenes import agreement, quarter_labels, quarters
from tests.builders.tiny_diffusion import write_folder
from walkcut.backbones import AttentionMap, Evidence, Part, load_extractor
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree, grow_tree
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.segmentation.algorithms.ncut import FixedThreshold
from walkcut.segmentation.methods.hierarchical import NCut
from walkcut.segmentation.presets import RECIPES, Pamr, Recipe
from walkcut.segmentation.segmenter import Segmenter, load_segmenter, refine_tree


@dataclass(frozen=True)
class MapsAlone:
    """An extractor that lets each patch look at itself alone, and that had to save memory."""

    version: str = "maps-1"
    offers: frozenset[Part] = frozenset({"maps"})

    def extract(self, image: UInt8[Tensor, "y x 3"], parts: frozenset[Part]) -> Evidence:
        return Evidence(maps=(AttentionMap((2, 2), torch.eye(4)),), concessions=("attention sliced",))


@dataclass
class ShortOfMemory:
    """A method that runs out of memory so many times."""

    times: int
    parts: frozenset[Part] = frozenset({"maps"})

    def tree(self, evidence: Evidence, picture: UInt8[Tensor, "y x 3"]) -> CutTree:
        self.times -= 1
        if self.times >= 0:
            raise torch.OutOfMemoryError
        return NCut().tree(evidence, picture)


def segmenter(method: str) -> Segmenter:
    return Segmenter(load_extractor("embedded"), RECIPES[method])


METHODS = [name for name in RECIPES if name != "diffseg"]  # which has an answer of its own, and nothing finer


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_quarters(method: str) -> None:
    tree = segmenter(method).tree(quarters(96, 128))
    assert tree.size == (96, 128)
    assert agreement(tree.labels(Segments(4)), quarter_labels(96, 128)) > 0.95


CHOSEN = {method: segmenter(method) for method in METHODS} | {"maps alone": Segmenter(MapsAlone(), RECIPES["ncut"])}


@pytest.mark.parametrize("chosen", CHOSEN.values(), ids=CHOSEN)
def test_the_same_thing_looks_the_same_in_another_picture(chosen: Segmenter) -> None:
    first, second = chosen.tree(quarters(96, 128)), chosen.tree(quarters(64, 64)[::-1, ::-1].copy())
    pictures = (first, quarter_labels(96, 128)), (second, quarter_labels(64, 64)[::-1, ::-1])
    here, there = (tree.describe_parts(overlaps(tree, truth)) for tree, truth in pictures)
    distances = np.linalg.norm(here[:, None] - there, axis=2)
    assert distances.argmin(1).tolist() == [0, 1, 2, 3]
    assert distances.diagonal().max() < distances[~np.eye(4, dtype=bool)].min() / 2


def overlaps(tree: CutTree, truth: np.ndarray) -> np.ndarray:
    return np.stack([np.bincount(tree.leaves[truth == part], minlength=tree.hierarchy.leaves) for part in range(4)])


@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize("size", [(16, 16), (16, 260), (131, 17), (257, 255)], ids=str)
def test_any_size_and_aspect_has_a_tree_of_its_own_size(method: str, size: tuple[int, int]) -> None:
    tree = segmenter(method).tree(quarters(*size))
    assert tree.size == size
    assert tree.segments(Level.FINE) == tree.labels(Level.FINE).max() + 1
    assert np.linalg.norm(tree.describe(Level.FINE), axis=1) == pytest.approx(1)


@pytest.mark.parametrize("method", RECIPES)
def test_a_picture_of_one_colour_is_no_error(method: str) -> None:
    tree = segmenter(method).tree(np.full((40, 50, 3), 128, np.uint8))
    assert tree.labels(Level.COARSE).shape == (40, 50)
    if "merge" in method:  # the graphs of ncut and diffcut can always be cut
        assert [tree.segments(granularity) for granularity in (*Level, Segments(9))] == [1] * 5


@pytest.mark.parametrize("method", RECIPES)
def test_the_same_picture_gives_the_same_tree(method: str) -> None:
    first, second = (segmenter(method).tree(quarters(60, 70)) for _ in range(2))
    assert first.leaves.tolist() == second.leaves.tolist()
    assert first.hierarchy.costs.tolist() == second.hierarchy.costs.tolist()
    assert first.describe(Level.FINE).tolist() == second.describe(Level.FINE).tolist()


def test_a_stored_tree_answers_as_a_new_one() -> None:
    stored = CutTree.from_bytes(segmenter("merge").tree(quarters(60, 70)).to_bytes())
    for granularity in (*Level, Segments(3)):
        anew = segmenter("merge").tree(quarters(60, 70)).labels(granularity)
        assert stored.labels(granularity).tolist() == anew.tolist()


def test_the_version_changes_with_whatever_changes_trees() -> None:
    plain = segmenter("ncut")
    others = [
        segmenter("merge"),
        replace(plain, recipe=Recipe("ncut", NCut(walk_steps=2))),
        replace(plain, recipe=Recipe("ncut", NCut(rule=FixedThreshold(0.5)))),
        replace(plain, recipe=Recipe("ncut", NCut(), pamr=Pamr())),
        replace(plain, extractor=MapsAlone()),
    ]
    assert replace(plain, recipe=Recipe("another name", NCut())).version == plain.version
    assert len({plain.version, *(other.version for other in others)}) == 6


def test_the_version_changes_with_the_features_that_describe_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    before = CHOSEN["maps alone"].version
    monkeypatch.setattr("walkcut.backbones.classical._REVISION", 99)
    assert CHOSEN["maps alone"].version != before


def test_a_model_without_the_evidence_says_which_methods_it_serves() -> None:
    with pytest.raises(SettingsError, match=r"merge needs contour and features, .* choose one of ncut, diffseg"):
        Segmenter(MapsAlone(), RECIPES["merge"])


def test_without_a_method_each_model_has_its_best(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", "sd14")
    assert load_segmenter("embedded").recipe == RECIPES["merge"]
    assert load_segmenter(str(folder)).recipe == RECIPES["ncut"]


def test_a_recipe_says_how_the_model_is_read(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", "sd14")
    ours, published = (load_segmenter(str(folder), name) for name in ("ncut", "dwc-table3-manc-64"))
    assert len(published.tree(quarters(40, 40)).leaves)
    assert ours.extractor.version != published.extractor.version


def test_pamr_moves_borders_to_the_pictures_edges() -> None:
    picture = quarters(48, 64)
    wrong = quarter_labels(48, 64)[:, ::-1].copy()
    wrong[:, 29:35] = wrong[:, 28:29]
    tree = grow_tree(wrong, chain(4), dict.fromkeys((Level.COARSE, Level.MEDIUM, Level.FINE), 4))
    refined = refine_tree(tree, torch.from_numpy(picture), Pamr())
    before, after = (agreement(each.leaves, quarter_labels(48, 64)) for each in (tree, refined))
    assert after > before


def chain(leaves: int) -> Hierarchy:
    joints = [[0, 1], *([leaves + row, row + 2] for row in range(leaves - 2))]
    return Hierarchy(np.array(joints), np.zeros(leaves - 1), np.ones(leaves - 1, bool))


def test_too_little_memory_for_the_cut_moves_it_to_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    short = Segmenter(MapsAlone(), Recipe("short", ShortOfMemory(times=1)))
    assert short.tree(quarters(16, 16)).concessions == ("attention sliced", "cut on the CPU")
    assert "out of memory on cpu: cutting on the CPU" in caplog.text
    with pytest.raises(torch.OutOfMemoryError):
        Segmenter(MapsAlone(), Recipe("short", ShortOfMemory(times=2))).tree(quarters(16, 16))


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(SettingsError, match="no model 'magic': choose one of"):
        load_extractor("magic")
