"""Text commands that choose the granularity of an image."""

from collections.abc import Iterable
from contextlib import suppress

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Segments, parse_granularity


def latest_granularity(commands: Iterable[str], tree: CutTree, default: Granularity) -> Granularity:
    """Return the granularity after these commands, in order; unknown ones are skipped."""
    granularity = default
    for command in commands:
        with suppress(GranularityError):
            granularity = apply_command(command, tree, granularity)
    return granularity


def apply_command(command: str, tree: CutTree, current: Granularity) -> Granularity:
    """Return the granularity that a command sets: `finer` adds half of the segments, `coarser` removes a third.

    Raises `GranularityError` for an unknown command.
    """
    count = tree.segment_count(current)
    match command.strip().lower():
        case "finer":
            return Segments(min(max(round(count * 3 / 2), count + 1), tree.hierarchy.leaf_count))
        case "coarser":
            return Segments(max(min(round(count * 2 / 3), count - 1), 1))
        case _:
            return parse_granularity(command)
