"""A segmenter that does by an image's height what models do at their worst."""

import logging
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from tests.builders.scenes import png, quarters
from walkcut.backbones import FeatureKind, ImageFeatures
from walkcut.backbones.classical import ClassicalBackbone
from walkcut.errors import SegmentationError, SettingsError
from walkcut.inference.model import ImageRequest
from walkcut.segmentation.presets import PRESETS
from walkcut.segmentation.segmenter import Segmenter
from walkcut.storage import image_digest

GOOD, KILLED, HANGS, DEFECT, KILLED_ONCE, REFUSED, TALKS = range(24, 31)


@dataclass(frozen=True)
class Treacherous:
    """The classical backbone, until it is shown one of these heights; what is to happen once leaves a file."""

    folder: Path
    name: str = ""
    inner: ClassicalBackbone = field(default_factory=ClassicalBackbone)

    @property
    def version(self) -> str:
        return f"{self.inner.version} {self.name}"

    @property
    def provides(self) -> frozenset[FeatureKind]:
        return self.inner.provides

    def extract(self, image: UInt8[Tensor, "y x 3"], kinds: frozenset[FeatureKind]) -> ImageFeatures:
        marker = self.folder / "once"
        match image.shape[0]:
            case height if height == KILLED or (height == KILLED_ONCE and not marker.exists()):
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            case height if height == HANGS:
                (self.folder / "hangs").touch()
                time.sleep(600)
            case height if height == DEFECT:
                raise ZeroDivisionError("by the model")
            case height if height == REFUSED:
                raise SegmentationError("nothing to see in it")
            case height if height == TALKS:
                logging.getLogger("treacherous").warning("what a %s image", "strange")
        return self.inner.extract(image, kinds)


def load(folder: Path) -> Segmenter:
    """The segmenter, with a name from a file if there is one; a file named "gone" stands for lost weights."""
    if (folder / "gone").exists():
        raise SettingsError("the weights are gone")
    name = (folder / "name").read_text() if (folder / "name").exists() else ""
    return Segmenter(Treacherous(folder, name), PRESETS["merge"])


def die(_folder: Path) -> Segmenter:
    """A model that cannot even be loaded."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def request(height: int, width: int = 32) -> ImageRequest:
    """An image of a height."""
    data = png(quarters(height, width))
    return ImageRequest(image_digest(data), data)
