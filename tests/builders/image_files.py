"""Images as the bytes of a file."""

import io
from typing import Any

from PIL import ExifTags, Image


def encode_image(image: Image.Image, image_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, image_format, **options)
    return file.getvalue()


def exif(orientation: int) -> Image.Exif:
    """EXIF data that hold an orientation (1 to 8)."""
    tags = Image.Exif()
    tags[ExifTags.Base.Orientation] = orientation
    return tags
