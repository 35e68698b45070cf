"""A model of Label Studio's editor: one annotation, and what happens to it when suggestions are accepted."""

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from walkcut.labelstudio.shapes import rle

Item = dict[str, Any]


class Annotation:
    """The brush regions of one annotation on the screen, as result items by id.

    Label Studio reports them in a draft, which it saves some time after a change.
    """

    def __init__(self, size: tuple[int, int], prediction: Mapping[str, Any] | None = None) -> None:
        self.size, self.items = size, dict[str, Item]()
        self._saves, self.drafts = count(), list[Item]()
        for item in prediction["result"] if prediction else ():
            self.items[item["id"]] = dict(item)  # regions keep the prediction's ids

    def accept(self, suggestions: Sequence[Item]) -> None:
        """Accept suggestions: each takes the place of the region with its id; then all dynamic regions go."""
        accepted = [item for item in suggestions if item["type"] == "brushlabels"]
        self.items |= {item["id"]: {**item, "origin": "prediction"} for item in accepted}
        self.items = {name: item for name, item in self.items.items() if not item.get("dynamic")}

    def name(self, identity: str, label: str) -> None:
        """Give a region a label by hand."""
        item = self.items[identity]
        self._change(item, label, self.mask(identity))

    def paint(self, identity: str, mask: np.ndarray) -> None:
        """Change a region's pixels by hand."""
        item = self.items[identity]
        self._change(item, (item["value"].get("brushlabels") or [""])[0], mask)

    def draw(self, identity: str, label: str, mask: np.ndarray, from_name: str, to_name: str) -> None:
        """Draw a new region by hand."""
        value = {"format": "rle", "rle": rle.encode(mask), "brushlabels": [label]}
        names = {"id": identity, "from_name": from_name, "to_name": to_name, "type": "brushlabels"}
        self.items[identity] = {**names, "origin": "manual", "value": value}

    def delete(self, identity: str) -> None:
        """Delete a region by hand."""
        del self.items[identity]

    def save(self) -> None:
        """Save the draft."""
        updated_at = f"2026-11-20T12:00:{next(self._saves):09.6f}Z"
        self.drafts = [{"id": 1, "updated_at": updated_at, "result": [*self.items.values()]}]

    def mask(self, identity: str) -> np.ndarray:
        """Return a region's pixels."""
        return rle.decode(self.items[identity]["value"]["rle"], self.size)

    def covered(self) -> np.ndarray:
        """Return for each pixel the number of regions that hold it."""
        return np.sum([np.zeros(self.size, np.int64), *map(self.mask, self.items)], axis=0)

    def _change(self, item: Item, label: str, mask: np.ndarray) -> None:
        origin = "manual" if item["origin"] == "manual" else "prediction-changed"
        value = {"format": "rle", "rle": rle.encode(mask), "brushlabels": [label]}
        self.items[item["id"]] = {**item, "origin": origin, "value": value}
