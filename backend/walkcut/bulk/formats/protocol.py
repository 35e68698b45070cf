"""Protocol of output formats."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from walkcut.bulk.items import EncodedItem, ItemPrediction


@runtime_checkable
class Format(Protocol):
    """An output format: images are encoded one by one in any process, and assembled once at the end."""

    @property
    def name(self) -> str:
        """Name on the command line."""

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """Encode one image."""

    def assemble(self, records: Iterable[Mapping[str, Any]], output_dir: Path) -> None:
        """Write the files that describe all images, from their records in the order of their keys.

        Memory does not grow with the number of images. A repeated call replaces the files of the call before.
        """
