"""What annotators type, as granularities of the tree before them."""

from collections.abc import Sequence
from contextlib import suppress

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Segments, parse_granularity


def follow_wishes(lines: Sequence[str], tree: CutTree, default: Granularity) -> Granularity:
    """The granularity that typed lines come to: each is absolute, or `finer` or `coarser` than what was before.

    A step is half as many segments again, or a third fewer. Raises `GranularityError` where the last line means
    nothing; earlier slips do not matter any more.
    """
    granularity = default
    for line in lines[:-1]:
        with suppress(GranularityError):
            granularity = _follow_wish(line, tree, granularity)
    return _follow_wish(lines[-1], tree, granularity)


def _follow_wish(line: str, tree: CutTree, before: Granularity) -> Granularity:
    """The granularity after one typed line."""
    now = tree.segments(before)
    match line.strip().lower():
        case "finer":
            return Segments(min(max(round(now * 3 / 2), now + 1), tree.hierarchy.leaves))
        case "coarser":
            return Segments(max(min(round(now * 2 / 3), now - 1), 1))
        case _:
            return parse_granularity(line)
