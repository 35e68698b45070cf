"""Label images."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from walkcut.bulk.formats.records import Records, file_name, image_record, label_map, label_name, write_lines
from walkcut.bulk.items import EncodedItem, ItemPrediction
from walkcut.images.encode import encode_png


@dataclass(frozen=True)
class PngFormat:
    """A 16-bit PNG for each image with its default prediction: 0 is in no region, others are ids in `labels.jsonl`."""

    name: ClassVar[str] = "png"

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """Return KEY.png, and a record of its regions."""
        file = file_name(image.item.key, ".png")
        segments = [
            {"id": index, "label": label_name(region.label), "score": region.score}
            for index, region in enumerate(image.predictions[-1].regions, 1)
        ]
        record = {**image_record(image, file), "segments": segments}
        return EncodedItem({file: encode_png(label_map(image))}, record)

    def assemble(self, records: Records, output_dir: Path) -> None:
        """Write `labels.jsonl`, a line for each image."""
        write_lines(records, output_dir / "labels.jsonl")
