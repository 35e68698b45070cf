"""What each stage of the work costs, and how the fast forms compare with the papers' own."""

import io
import platform
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int64
from PIL import Image
from torch import Tensor

from walkcut.evaluation.reference import reference_labels
from walkcut.hierarchy.granularity import Level
from walkcut.hierarchy.hierarchy import renumber
from walkcut.images import DecodeLimits, decode
from walkcut.labelstudio import brush
from walkcut.segmentation.methods.hierarchical import DiffCut, NCut
from walkcut.segmentation.segmenter import Segmenter
from walkcut.telemetry.spans import record_spans, span, timed

STAGES = ("decode", "VAE", "U-Net", "model", "aggregate", "walk", "affinity", "cut", "assign", "refine", "encode")
MODEL_STAGES = frozenset({"VAE", "U-Net", "model"})

_CLEAR_REFS = Path("/proc/self/clear_refs")  # writing 5 sets the peak of the resident memory back (Linux)
_STATUS = Path("/proc/self/status")
_THRESHOLDS = 100


@dataclass(frozen=True)
class StageCost:
    """Seconds, the least of all rounds, and the peak memory in bytes; of the process, or allocated on the GPU."""

    seconds: float
    peak: int | None


@dataclass(frozen=True)
class Comparison:
    """Our way after the model's passes beside the papers' own: seconds each, and the share of pixels labelled alike."""

    ours: float
    plain: float
    agreement: float
    segments: int

    @property
    def ratio(self) -> float:
        """How many times faster ours is."""
        return self.plain / self.ours


@dataclass
class Meter:
    """An observer of stages that adds up what each costs within a round."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    peaks: dict[str, int | None] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        self._wait()
        _forget_peak(self.device)
        with timed(name, self._add):
            yield
            self._wait()
        peak, before = peak_memory(self.device), self.peaks.get(name)
        self.peaks[name] = peak if peak is None or before is None else max(before, peak)

    def _add(self, name: str, seconds: float) -> None:
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure_stages(segmenter: Segmenter, data: bytes, *, rounds: int) -> dict[str, StageCost]:
    """What each stage of the way from an image's file to its brush masks costs, after one round to warm up."""
    meters = []
    for _ in range(rounds + 1):
        meters.append(Meter(segmenter.device))
        with record_spans(meters[-1]):
            with span("decode"):
                image = decode(data, DecodeLimits())
            tree = segmenter.segment(image)
            with span("encode"):
                labels = tree.labels(Level.AUTO)
                for segment in range(tree.segments(Level.AUTO)):
                    brush.encode(labels == segment)
    counted = meters[1:]
    return {
        name: StageCost(min(meter.seconds[name] for meter in counted), counted[-1].peaks[name])
        for name in STAGES
        if name in counted[0].seconds
    }


def compare_with_reference(segmenter: Segmenter, data: bytes) -> Comparison:
    """The method's published form in our way and in the papers' own, on the same evidence."""
    segmenter = published_form(segmenter)
    image = decode(data, DecodeLimits())
    pixels = torch.tensor(image, device=segmenter.device)
    image_features = segmenter.backbone.extract(pixels, segmenter.preset.method.requires)
    begin = time.perf_counter()
    ours = segmenter.preset.method.build_tree(image_features, pixels).labels(Level.AUTO).astype(np.int64)
    middle = time.perf_counter()
    plain = _numbers(reference_labels(segmenter.preset.method, image_features, (image.shape[0], image.shape[1])))
    end = time.perf_counter()
    return Comparison(middle - begin, end - middle, float((renumber(ours) == plain).mean()), int(ours.max()) + 1)


def published_form(segmenter: Segmenter) -> Segmenter:
    """The same, cut no further than the method's own rule says and at evenly spaced thresholds, as in the papers."""
    method = segmenter.preset.method
    if isinstance(method, NCut | DiffCut):
        method = replace(method, max_leaves=None, thresholds=_THRESHOLDS)
    return replace(segmenter, preset=replace(segmenter.preset, method=method, pamr=None))


def synthetic_image(height: int = 480, width: int = 640, patches: int = 14) -> bytes:
    """A PNG of coloured patches with soft shading and grain, the same each time."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    centres = draw.uniform((0, 0), (height, width), (patches, 2))
    nearest = ((y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2).argmin(-1)
    shade = 20 * np.sin(x / 90 + y / 60)[..., None]
    pixels = draw.uniform(30, 220, (patches, 3))[nearest] + shade + draw.normal(0, 8, (height, width, 3))
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def peak_memory(device: torch.device) -> int | None:
    """The most bytes held since the peak was forgotten, where the system tells."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not sys.platform.startswith("linux"):
        return None
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def hardware(device: torch.device) -> str:
    """The device in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform.startswith("linux"):
        _CLEAR_REFS.write_text("5")


def _numbers(labels: Int64[Tensor, "y x"]) -> Int64[np.ndarray, "y x"]:
    """Labels numbered by first pixel."""
    return renumber(labels.cpu().numpy())
