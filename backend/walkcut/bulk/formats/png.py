"""Label images."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from walkcut.bulk.formats.files import file_name, image_name, write_lines
from walkcut.bulk.formats.label_maps import default_label_map
from walkcut.bulk.items import EncodedItem, ItemPrediction
from walkcut.images.encode import encode_png


@dataclass(frozen=True)
class PngFormat:
    """A 16-bit PNG for each image with its default prediction: 0 is in no region, others are ids in `labels.jsonl`."""

    name: ClassVar[str] = "png"

    def encode(self, image: ItemPrediction) -> EncodedItem:
        """Return KEY.png, and a record of its regions."""
        prediction = image.predictions[-1]
        height, width = image.size
        file = file_name(image.item.key, ".png")
        segments = [
            {"id": index, "label": region.label, "score": region.score}
            for index, region in enumerate(prediction.regions, 1)
        ]
        record = {
            "key": image.item.key,
            "image": image_name(image.item),
            "file": file,
            "width": width,
            "height": height,
            "model_version": prediction.model_version,
            "segments": segments,
        }
        return EncodedItem({file: encode_png(default_label_map(image))}, record)

    def assemble(self, records: Iterable[Mapping[str, Any]], output_dir: Path) -> None:
        """Write `labels.jsonl`, a line for each image."""
        write_lines(records, output_dir / "labels.jsonl")
