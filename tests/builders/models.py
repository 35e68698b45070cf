"""Models and predictors for tests: counted, held back, or small."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import UInt8
from torch import Tensor

from walkcut.backbones import Backbone, FeatureKind, ImageFeatures, load_backbone
from walkcut.images import DecodeLimits, FetchPolicy, ImageLoader
from walkcut.inference.model import ImageRequest, InProcessModel
from walkcut.inference.predictor import Predictor
from walkcut.inference.project import ProjectOptions
from walkcut.inference.tree_service import TreeService
from walkcut.segmentation.presets import PRESETS
from walkcut.segmentation.segmenter import Segmenter
from walkcut.storage import TreeCache


@dataclass(frozen=True)
class CountingBackbone:
    """The classical backbone, with the sizes of the images that it has seen."""

    inner: Backbone = field(default_factory=lambda: load_backbone("classical"))
    calls: list[tuple[int, ...]] = field(default_factory=list)
    hook: Callable[[], None] = lambda: None

    @property
    def version(self) -> str:
        return self.inner.version

    @property
    def provides(self) -> frozenset[FeatureKind]:
        return self.inner.provides

    def extract(self, image: UInt8[Tensor, "y x 3"], kinds: frozenset[FeatureKind]) -> ImageFeatures:
        self.calls.append(tuple(image.shape))
        self.hook()
        return self.inner.extract(image, kinds)


@dataclass
class Gate:
    """A hook that waits until it is opened."""

    opened: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> None:
        assert self.opened.wait(60)


def in_process_model() -> InProcessModel:
    return InProcessModel(Segmenter(load_backbone("classical"), PRESETS["merge"]), DecodeLimits())


@dataclass
class GatedModel:
    """A model that waits until its gate is opened, with the requests that it got."""

    inner: InProcessModel = field(default_factory=in_process_model)
    gate: threading.Event = field(default_factory=threading.Event)
    requests: list[ImageRequest] = field(default_factory=list)
    version: str = "v1"
    preset_name: str = "merge"
    unavailable_reason: str = ""
    closed: bool = False

    def segment(self, request: ImageRequest) -> bytes:
        self.requests.append(request)
        assert self.gate.wait(60)
        return self.inner.segment(request)

    def close(self) -> None:
        self.closed = True
        self.gate.set()


def make_predictor(
    folder: Path, backbone: Backbone | None = None, timeout: float = 80.0, preset: str = "merge"
) -> Predictor:
    """Return a predictor that caches its trees in `folder`."""
    segmenter = Segmenter(backbone or load_backbone("classical"), PRESETS[preset])
    tree_service = TreeService(InProcessModel(segmenter, DecodeLimits()), TreeCache(folder, 1 << 24))
    return Predictor(tree_service, ImageLoader(FetchPolicy(), None), ProjectOptions(), timeout=timeout)
