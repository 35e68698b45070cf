"""The benchmark's stages and comparison; no test depends on its figures."""

import time

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
def test_the_stages_add_up_to_the_whole(method: str) -> None:
    meter = Meter(CPU)
    segmenter = Segmenter(ClassicalBackbone(), PRESETS[method])
    with meter.rest(), record_spans(meter):
        begin = time.perf_counter()
        segmenter.segment(decode(png(quarters(40, 60)), DecodeLimits()))
        whole = time.perf_counter() - begin
    assert sum(meter.seconds.values()) == pytest.approx(whole, rel=0.1, abs=0.01)
    assert meter.seconds["features"] > 0


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
