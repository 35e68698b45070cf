"""Label pictures."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from walkcut.bulk.formats.label_maps import label_map
from walkcut.bulk.formats.writers import file_name, picture_name, to_png, write_lines
from walkcut.bulk.items import Labelled, Output


@dataclass(frozen=True)
class PngFormat:
    """A 16-bit PNG for each picture: 0 is in no region, the others are numbers of `segments` in `labels.jsonl`.

    Only the default labelling is written.
    """

    name: ClassVar[str] = "png"

    def encode(self, picture: Labelled) -> Output:
        """KEY.png, and as its record what the numbers in it mean."""
        labelling = picture.labellings[-1]
        height, width = picture.size
        file = file_name(picture.item.key, ".png")
        segments = [
            {"id": number, "label": segment.label, "score": segment.score}
            for number, segment in enumerate(labelling.segments, 1)
        ]
        record = {
            "key": picture.item.key,
            "image": picture_name(picture.item),
            "file": file,
            "width": width,
            "height": height,
            "model_version": labelling.model_version,
            "segments": segments,
        }
        return Output({file: to_png(label_map(picture))}, record)

    def assemble(self, records: Iterable[Mapping[str, Any]], out: Path) -> None:
        """Write `labels.jsonl`, a line for each picture."""
        write_lines(records, out / "labels.jsonl")
