from dataclasses import dataclass, replace

import numpy as np
import pytest
from jaxtyping import UInt8
from torch import Tensor

from tests.scenes import agreement, quarter_labels, quarters
from walkcut.errors import SegmentationError, SettingsError
from walkcut.extraction import Evidence, Part, load_extractor
from walkcut.pipeline import LEVELS, RECIPES, Segmenter, named_levels, read_recipe
from walkcut.segmentation.granularity import Level, Segments
from walkcut.segmentation.hierarchy import Hierarchy
from walkcut.segmentation.ncut import FixedThreshold
from walkcut.segmentation.tree import CutTree


@dataclass(frozen=True)
class NoEvidence:
    """An extractor that finds nothing."""

    version: str = "nothing-1"

    def extract(self, image: UInt8[Tensor, "y x 3"], parts: frozenset[Part]) -> Evidence:
        return Evidence()


def segmenter(method: str) -> Segmenter:
    return Segmenter(load_extractor("embedded"), RECIPES[method])


@pytest.mark.parametrize("method", RECIPES)
def test_every_method_finds_the_quarters(method: str) -> None:
    tree = segmenter(method).tree(quarters(96, 128))
    assert tree.size == (96, 128)
    assert agreement(tree.labels(Segments(4)), quarter_labels(96, 128)) > 0.95


@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize("size", [(16, 16), (16, 260), (131, 17), (257, 255)], ids=str)
def test_any_size_and_aspect_has_a_tree_of_its_own_size(method: str, size: tuple[int, int]) -> None:
    tree = segmenter(method).tree(quarters(*size))
    assert tree.size == size
    assert tree.segments(Level.FINE) == tree.labels(Level.FINE).max() + 1


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


def test_a_stored_tree_answers_as_a_new_one() -> None:
    stored = CutTree.from_bytes(segmenter("merge").tree(quarters(60, 70)).to_bytes())
    for granularity in (*Level, Segments(3)):
        anew = segmenter("merge").tree(quarters(60, 70)).labels(granularity)
        assert stored.labels(granularity).tolist() == anew.tolist()


def test_the_version_changes_with_whatever_changes_trees() -> None:
    plain = segmenter("ncut")
    others = [
        segmenter("merge"),
        replace(plain, recipe=replace(plain.recipe, walk_steps=2)),
        replace(plain, recipe=replace(plain.recipe, rule=FixedThreshold(0.5))),
        replace(plain, extractor=NoEvidence()),
    ]
    assert segmenter("ncut").version == plain.version
    assert len({plain.version, *(other.version for other in others)}) == 5


@pytest.mark.parametrize(
    ("method", "remedy"), [("merge", "choose the method ncut"), ("ncut", "choose the method merge")]
)
def test_a_model_without_the_evidence_says_which_method_it_serves(method: str, remedy: str) -> None:
    with pytest.raises(SegmentationError, match=remedy):
        Segmenter(NoEvidence(), RECIPES[method]).tree(quarters(20, 20))


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(SettingsError, match="no method 'magic': choose one of merge, ncut"):
        read_recipe("magic")


def test_an_unknown_model_is_refused() -> None:
    with pytest.raises(SettingsError, match="no model 'magic': choose one of"):
        load_extractor("magic")


@pytest.mark.parametrize(("leaves", "fine"), [(5, 5), (20, 8), (1000, 40)])
def test_named_levels_keep_within_their_bounds(leaves: int, fine: int) -> None:
    bound = LEVELS["merge"][Level.FINE].tau
    costs = np.full(leaves - 1, bound + 0.01 if leaves < 100 else bound)
    joints = np.stack([np.arange(leaves - 1) + leaves - 1, np.arange(leaves - 1)], 1)
    joints[0] = [leaves - 1, 0]
    hierarchy = Hierarchy(joints, costs, np.zeros(leaves - 1, bool))
    assert named_levels(hierarchy, "merge")[Level.FINE] == fine
