"""The model as the server sees it: an image file in, the file of its cut tree out."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

from walkcut.images import DecodeLimits, decode
from walkcut.storage import Crop
from walkcut.telemetry.spans import span

if TYPE_CHECKING:
    from walkcut.segmentation.segmenter import Segmenter


@dataclass(frozen=True)
class ImageRequest:
    """An image to segment: its file, the file's digest, and the crop to segment instead of the whole image."""

    digest: str
    data: bytes
    crop: Crop | None = None


@runtime_checkable
class TreeModel(Protocol):
    """Anything that makes cut trees, one at a time."""

    @property
    def version(self) -> str:
        """Version that changes with anything that changes trees."""

    @property
    def preset_name(self) -> str:
        """Name of the preset."""

    @property
    def unavailable_reason(self) -> str:
        """Why the model cannot be used now; empty when it can."""

    def segment(self, request: ImageRequest) -> bytes:
        """Return the file of the image's cut tree. Raises `ImageError`, `SegmentationError` or `BusyError`."""

    def close(self) -> None:
        """Release the model; a running `segment` ends with `BusyError`."""


class InProcessModel:
    """A model in this process, which can always be used."""

    unavailable_reason = ""

    def __init__(self, segmenter: "Segmenter", limits: DecodeLimits) -> None:
        self.segmenter, self._limits = segmenter, limits
        self.version, self.preset_name = segmenter.version, segmenter.preset.name

    def segment(self, request: ImageRequest) -> bytes:
        """Decode the image and segment it."""
        with span("decode"):
            image = decode(request.data, self._limits)
        pixels = image if request.crop is None else np.ascontiguousarray(image[request.crop])
        return self.segmenter.segment(pixels).to_bytes()

    def close(self) -> None:
        """Do nothing: there is nothing to release."""
