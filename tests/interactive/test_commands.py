import numpy as np
import pytest

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.interactive.commands import apply_command, latest_granularity

MERGES = np.array([[0, 1], *([row + 29, row + 1] for row in range(1, 29))])
TREE = CutTree(np.arange(30, dtype=np.uint16)[None], Hierarchy(MERGES, np.linspace(1, 0, 29), np.zeros(29, bool)), {})


@pytest.mark.parametrize(
    ("lines", "granularity"),
    [
        (["12"], Segments(12)),
        (["12", "auto"], Level.AUTO),
        (["12", "finer"], Segments(18)),
        (["12", "coarser", "Coarser "], Segments(5)),
        (["1", "finer"], Segments(2)),
        (["2", "coarser", "coarser"], Segments(1)),
        (["999", "finer"], Segments(30)),
        (["12", "slip", "finer", "slip"], Segments(18)),
        ([], Level.AUTO),
    ],
)
def test_commands_are_applied_in_order(lines: list[str], granularity: Level | Segments) -> None:
    assert latest_granularity(lines, TREE, Level.AUTO) == granularity


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(GranularityError, match=r"'slip'.*12.*tau=0.4"):
        apply_command("slip", TREE, Segments(12))
