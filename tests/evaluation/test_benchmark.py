"""The benchmark's stages and comparison; no test depends on its figures."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from tests.builders.scenes import png, quarters
from tests.builders.tiny_diffusion import tiny_backbone
from walkcut.backbones.classical import ClassicalBackbone
from walkcut.evaluation.benchmark import Meter, compare_with_reference, measure_stages, synthetic_image
from walkcut.images import DecodeLimits, decode
from walkcut.segmentation.presets import PAPER_PRESETS, PRESETS
from walkcut.segmentation.segmenter import Segmenter
from walkcut.telemetry.spans import record_spans

CPU = torch.device("cpu")


def test_every_stage_is_measured() -> None:
    segmenter = Segmenter(tiny_backbone("sd14"), PAPER_PRESETS["dwc-table5-dwc-pamr"])
    costs = measure_stages(segmenter, png(quarters(40, 60)), rounds=2)
    stages = ["decode", "features", "VAE", "U-Net", "aggregate", "walk", "affinity", "cut", "assign", "refine"]
    assert list(costs) == [*stages, "encode", "other"]
    assert all(cost.seconds > 0 for cost in costs.values())
    assert all(cost.peak is None or cost.peak > 1 << 20 for cost in costs.values())


@pytest.mark.parametrize("method", PRESETS)
def test_no_time_counts_twice(method: str) -> None:
    segmenter, open_stages = Segmenter(ClassicalBackbone(), PRESETS[method]), list[str]()

    @contextmanager
    def observe(name: str) -> Iterator[None]:
        assert not open_stages, f"{name} is within {open_stages}"
        open_stages.append(name)
        yield
        open_stages.pop()

    with record_spans(observe):
        segmenter.segment(quarters(40, 60))


def test_what_no_stage_covers_is_the_rest() -> None:
    meter = Meter(CPU)
    meter.seconds["cut"] = -3600.0
    with meter.rest():
        pass
    assert meter.seconds["other"] > 3599


def test_labels_are_those_of_the_papers_algorithm() -> None:
    segmenter = Segmenter(tiny_backbone("sd14"), PRESETS["diffseg"])
    comparison = compare_with_reference(segmenter, png(quarters(40, 60)))
    assert comparison.agreement == 1
    assert min(comparison.seconds, comparison.reference_seconds) > 0


def test_the_peak_of_a_stage_is_its_own() -> None:
    meter = Meter(CPU)
    with meter("large"):
        held = torch.ones(1 << 26)
    size = held.nbytes
    del held
    with meter("small"):
        pass
    large, small = meter.peaks["large"], meter.peaks["small"]
    assert large is None or small is None or large - small > size // 2


def test_the_synthetic_image_is_the_same_each_time() -> None:
    assert synthetic_image() == synthetic_image()
    assert decode(synthetic_image(), DecodeLimits()).shape == (480, 640, 3)
