"""Time and memory of each stage, and the speed-up over the papers' own algorithms."""

import platform
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from walkcut.evaluation.reference import REFERENCE_THRESHOLDS, reference_labels
from walkcut.hierarchy.granularity import Level
from walkcut.hierarchy.hierarchy import renumber
from walkcut.images import DecodeLimits, decode
from walkcut.images.encode import encode_png
from walkcut.labelstudio.shapes import rle
from walkcut.segmentation.methods.hierarchical import DiffCut, NCut
from walkcut.segmentation.segmenter import Segmenter
from walkcut.telemetry.spans import record_spans, span

MODEL_STAGES = frozenset({"VAE", "U-Net", "model"})
OTHER = "other"  # what no stage measures

_CLEAR_REFS = Path("/proc/self/clear_refs")  # writing 5 resets the peak of the resident memory (Linux)
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class StageCost:
    """Seconds, the minimum of all rounds, and the peak memory in bytes, of the process or on the GPU."""

    seconds: float
    peak: int | None


@dataclass(frozen=True)
class Comparison:
    """Seconds after the model's passes, of walkcut and of the papers' algorithm, and the fraction of equal pixels."""

    seconds: float
    reference_seconds: float
    agreement: float
    segments: int


@dataclass
class Meter:
    """An observer of stages that sums what each costs within a round."""

    device: torch.device
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    peaks: dict[str, int | None] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Measure a stage."""
        self._wait()
        _reset_peak(self.device)
        begin = time.perf_counter()
        yield
        self._wait()
        self.seconds[name] += time.perf_counter() - begin
        peak, before = peak_memory(self.device), self.peaks.get(name)
        self.peaks[name] = peak if peak is None or before is None else max(before, peak)

    @contextmanager
    def rest(self) -> Iterator[None]:
        """Count as `OTHER` the seconds of what runs inside but for those of its stages."""
        begin = time.perf_counter()
        yield
        self._wait()
        self.seconds[OTHER] = time.perf_counter() - begin - sum(self.seconds.values())

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def measure_stages(segmenter: Segmenter, data: bytes, *, rounds: int) -> dict[str, StageCost]:
    """Measure each stage from an image's file to its brush masks, in their order, after one round to warm up.

    The last one, `OTHER`, is the time that no stage covers, so that the sum is the time of the whole.
    """
    meters = []
    for _ in range(rounds + 1):
        meters.append(Meter(segmenter.device))
        with meters[-1].rest(), record_spans(meters[-1]):
            with span("decode"):
                image = decode(data, DecodeLimits())
            tree = segmenter.segment(image)
            with span("encode"):
                labels = tree.labels(Level.AUTO)
                for segment in range(tree.segment_count(Level.AUTO)):
                    rle.encode(labels == segment)
    counted = meters[1:]
    return {
        name: StageCost(min(meter.seconds[name] for meter in counted), counted[-1].peaks.get(name))
        for name in counted[0].seconds
    }


def compare_with_reference(segmenter: Segmenter, data: bytes) -> Comparison:
    """Compare the method's published form with the papers' algorithm, on the same image features.

    That form is cut only by the method's rule, at evenly spaced thresholds, without PAMR.
    """
    method = segmenter.preset.method
    if isinstance(method, NCut | DiffCut):
        method = replace(method, max_leaves=None, thresholds=REFERENCE_THRESHOLDS)
    image = decode(data, DecodeLimits())
    pixels = torch.tensor(image, device=segmenter.device)
    features = segmenter.backbone.extract(pixels, method.requires)
    begin = time.perf_counter()
    labels = method.build_tree(features, pixels).labels(Level.AUTO).astype(np.int64)
    middle = time.perf_counter()
    paper_labels = reference_labels(method, features, (image.shape[0], image.shape[1]))
    reference = renumber(paper_labels.cpu().numpy())
    end = time.perf_counter()
    agreement = float((renumber(labels) == reference).mean())
    return Comparison(middle - begin, end - middle, agreement, int(labels.max()) + 1)


def synthetic_image(height: int = 480, width: int = 640, patches: int = 14) -> bytes:
    """Return a PNG of coloured patches with soft shading and grain, the same each time."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    centres = rng.uniform((0, 0), (height, width), (patches, 2))
    nearest = ((y[..., None] - centres[:, 0]) ** 2 + (x[..., None] - centres[:, 1]) ** 2).argmin(-1)
    shade = 20 * np.sin(x / 90 + y / 60)[..., None]
    pixels = rng.uniform(30, 220, (patches, 3))[nearest] + shade + rng.normal(0, 8, (height, width, 3))
    return encode_png(pixels.clip(0, 255).astype(np.uint8))


def peak_memory(device: torch.device) -> int | None:
    """Return the peak in bytes since the last reset; `None` where the system does not report it."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if not sys.platform.startswith("linux"):
        return None
    lines = dict(line.split(":", 1) for line in _STATUS.read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024


def hardware(device: torch.device) -> str:
    """Return the device's name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif sys.platform.startswith("linux"):
        _CLEAR_REFS.write_text("5")
