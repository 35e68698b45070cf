"""Images as people upload them, and the masks of them: drawn from the sample, encoded in different ways."""

import io
import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool
from label_studio_sdk.converter import brush
from PIL import Image, ImageDraw, ImageOps

Mask = Bool[np.ndarray, "height width"]

REPOSITORY = Path(__file__).resolve().parents[2]
ORIENTATION = 0x0112  # the EXIF tag
TURNED_RIGHT = 6  # its value for "turn clockwise by 90° to see it upright"


def sample() -> bytes:
    """The sample image, upright RGB JPEG."""
    return (REPOSITORY / "labelstudio_config" / "sample.jpg").read_bytes()


def sample_task() -> dict[str, Any]:
    """The sample task, which holds the sample image as a data: URL."""
    (task,) = json.loads((REPOSITORY / "labelstudio_config" / "sample_task.json").read_text(encoding="utf-8"))
    return dict(task)


def views() -> list[bytes]:
    """Four images of the same kind: the sample, its mirror image, and a part of either."""
    whole = Image.open(io.BytesIO(sample())).convert("RGB")
    part = whole.crop((60, 10, whole.width - 20, whole.height - 30))
    views = (whole, ImageOps.mirror(whole), part, ImageOps.mirror(part))
    return [_encoded(view, "JPEG", quality=92) for view in views]


def data_url_bytes(url: str) -> bytes:
    """The bytes within a base64 data: URL."""
    return b64decode(url.partition("base64,")[2])


def exif_turned() -> bytes:
    """A JPEG whose pixels lie on their side, and whose EXIF tag says so."""
    upright = Image.open(io.BytesIO(sample())).resize((360, 270))
    exif = Image.Exif()
    exif[ORIENTATION] = TURNED_RIGHT
    return _encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=90, exif=exif)


def transparent() -> bytes:
    """An RGBA PNG: the sample's mirror image, with transparent corners."""
    image = ImageOps.mirror(Image.open(io.BytesIO(sample()))).resize((320, 241))
    alpha = Image.new("L", image.size)
    ImageDraw.Draw(alpha).ellipse((-40, -40, image.width + 40, image.height + 40), fill=255)
    image.putalpha(alpha)
    return _encoded(image, "PNG")


def natural_size(image: bytes) -> tuple[int, int]:
    """An image's width and height as a browser shows it, its EXIF orientation applied."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(image))).size


def region_mask(region: dict[str, Any]) -> Mask:
    """A brush region's mask, decoded by Label Studio's own code; a value other than 0 and 255 is a ValueError."""
    shape = (region["original_height"], region["original_width"], 4)
    mask: Bool[np.ndarray, "height width channels"] = brush.decode_rle(region["value"]["rle"]).reshape(shape)
    if not np.isin(mask, (0, 255)).all():
        raise ValueError(f"region {region['id']} has values other than 0 and 255")
    if not (mask == mask[..., :1]).all():
        raise ValueError(f"region {region['id']} differs between channels")
    return np.asarray(mask[..., 3] == 255)


def brush_value(mask: np.ndarray, label: str) -> dict[str, Any]:
    """The value of a brush region, coded by Label Studio's own code."""
    return {"format": "rle", "rle": brush.mask2rle(mask), "brushlabels": [label]}


def _encoded(image: Image.Image, image_format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()
