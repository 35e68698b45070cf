"""A backbone that fails in the way that an image's height tells it to."""

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

GOOD, KILLED, HANGS, BUG, KILLED_ONCE, REFUSED, LOGS = range(24, 31)


@dataclass(frozen=True)
class FaultyBackbone:
    """The classical backbone with faults by an image's height; what has happened leaves a file in `folder`."""

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
            case height if height == BUG:
                raise ZeroDivisionError("by the model")
            case height if height == REFUSED:
                raise SegmentationError("nothing to see in it")
            case height if height == LOGS:
                logging.getLogger("faulty").warning("what a %s image", "strange")
        return self.inner.extract(image, kinds)


def load(folder: Path) -> Segmenter:
    """Return the segmenter, named by the file "name" if it exists; a file "gone" stands for deleted weights."""
    if (folder / "gone").exists():
        raise SettingsError("the weights are gone")
    name = (folder / "name").read_text() if (folder / "name").exists() else ""
    return Segmenter(FaultyBackbone(folder, name), PRESETS["merge"])


def die(_folder: Path) -> Segmenter:
    """Kill the process instead of loading the model."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def request(height: int, width: int = 32) -> ImageRequest:
    """Return the request for an image of this height."""
    data = png(quarters(height, width))
    return ImageRequest(image_digest(data), data)
