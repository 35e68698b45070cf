"""Text commands that choose the granularity of an image."""

from collections.abc import Sequence
from contextlib import suppress

from walkcut.errors import GranularityError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity, Segments, parse_granularity


def resolve_granularity_commands(commands: Sequence[str], tree: CutTree, default: Granularity) -> Granularity:
    """Return the granularity after the commands: each sets one, or refines the previous one by `finer` or `coarser`.

    `finer` adds half of the segments, `coarser` removes a third. Raises `GranularityError` where the last command is
    unknown; unknown earlier ones are skipped.
    """
    granularity = default
    for command in commands[:-1]:
        with suppress(GranularityError):
            granularity = _apply_command(command, tree, granularity)
    return _apply_command(commands[-1], tree, granularity)


def _apply_command(command: str, tree: CutTree, current: Granularity) -> Granularity:
    count = tree.segment_count(current)
    match command.strip().lower():
        case "finer":
            return Segments(min(max(round(count * 3 / 2), count + 1), tree.hierarchy.leaf_count))
        case "coarser":
            return Segments(max(min(round(count * 2 / 3), count - 1), 1))
        case _:
            return parse_granularity(command)
