"""What annotators type, as granularities of the tree before them."""

from collections.abc import Sequence
from contextlib import suppress

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Segments, parse_granularity


def resolve_granularity_commands(lines: Sequence[str], tree: CutTree, default: Granularity) -> Granularity:
    """The granularity that typed lines come to: each is absolute, or `split_region` or `merge_with_parent` than what was before.

    A step is half as many segments again, or a third fewer. Raises `GranularityError` where the last line means
    nothing; earlier slips do not matter any more.
    """
    granularity = default
    for line in lines[:-1]:
        with suppress(GranularityError):
            granularity = _apply_command(line, tree, granularity)
    return _apply_command(lines[-1], tree, granularity)


def _apply_command(line: str, tree: CutTree, before: Granularity) -> Granularity:
    """The granularity after one typed line."""
    now = tree.segment_count(before)
    match line.strip().lower():
        case "finer":
            return Segments(min(max(round(now * 3 / 2), now + 1), tree.hierarchy.leaf_count))
        case "coarser":
            return Segments(max(min(round(now * 2 / 3), now - 1), 1))
        case _:
            return parse_granularity(line)
