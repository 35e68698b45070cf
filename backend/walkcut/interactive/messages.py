"""Messages to annotators: short sentences, since Label Studio may cover a line after about 40 characters."""

from collections.abc import Mapping

from walkcut.hierarchy.granularity import Granularity, Segments
from walkcut.labelstudio.config import ImageTag
from walkcut.labelstudio.predictions import Region


def describe_segmentation(after: Mapping[str, Region], granularity: Granularity, *, markers: int, hidden: int) -> str:
    """Return how many regions there are at a granularity, how many deletion markers, and how many `hidden` segments.

    Label Studio counts the markers as suggestions, also of regions that are not on the screen.
    """
    modified = sum(region.modified for region in after.values())
    level = "" if isinstance(granularity, Segments) else f"{granularity}: "
    kept = f", {modified} of them kept" if modified else ""
    gone = f"; {_count(markers, 'more suggestion')} remove{'s' * (markers == 1)} old ones" if markers else ""
    return f"{level}{_count(len(after), 'region')}{kept}{gone}" + (f"; {hidden} too small to show" if hidden else "")


def describe_edits(verb: str, before: Mapping[str, Region], after: Mapping[str, Region], image_tag: ImageTag) -> str:
    """Return what the edits of a label have changed.

    >>> import numpy as np
    >>> from walkcut.labelstudio.config import ControlTag
    >>> parts = {name: Region(np.eye(2, dtype=bool), "A", id=name) for name in "ab"}
    >>> describe_edits("Finer", {}, parts, ImageTag("image", "$image", (ControlTag("brush", "brush", ("A",)),)))
    'Split into 2 regions'
    """
    changed = [region for name, region in after.items() if before.get(name) is not region]
    new, gone = [region for region in changed if region.id not in before], before.keys() - after.keys()
    match verb.lower():
        case "finer":
            return f"Split into {_count(len(changed), 'region')}"
        case "coarser" | "merge":
            merged = f"{len(changed) + len(gone)} regions merged into {len(changed)}"
            return merged if gone else "Region made larger"
        case "re-segment":
            return f"{_count(len(new), 'new region')} in the box"
        case _:
            name = next((region.label for region in new if image_tag.is_class(region.label)), "")
            return f"Selected: {name}" if name else "Region selected"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
