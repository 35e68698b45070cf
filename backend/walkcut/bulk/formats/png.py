"""Label images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from walkcut.bulk.formats.label_maps import label_map
from walkcut.bulk.formats.writers import file_name, image_name, to_png, write_lines
from walkcut.bulk.items import EncodedItem, ItemPrediction


@dataclass(frozen=True)
class PngFormat:
    """A 16-bit PNG for each image: 0 is in no region, the others are numbers of `segments` in `labels.jsonl`.

    Only the default labelling is written.
    """

    name: ClassVar[str] = "png"

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """KEY.png, and as its record what the numbers in it mean."""
        labelling = image.predictions[-1]
        height, width = image.size
        file = file_name(image.item.key, ".png")
        segments = [
            {"id": number, "label": region.label, "score": region.score}
            for number, region in enumerate(labelling.regions, 1)
        ]
        record = {
            "key": image.item.key,
            "image": image_name(image.item),
            "file": file,
            "width": width,
            "height": height,
            "model_version": labelling.model_version,
            "segments": segments,
        }
        return EncodedItem({file: to_png(label_map(image))}, record)

    def assemble(self, records: Iterable[Mapping[str, Any]], out: Path) -> None:
        """Write `labels.jsonl`, a line for each image."""
        write_lines(records, out / "labels.jsonl")
