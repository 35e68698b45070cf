import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.builders.bulk import make_plan, quick_segmenter, write_images
from tests.builders.bulk_commands import walkcut
from walkcut.bulk.engines import local, ray_engine
from walkcut.bulk.engines.options import EngineOptions
from walkcut.settings import Settings


def test_without_ray_its_installation_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "walkcut.bulk.engines.ray_engine")
    monkeypatch.delattr("walkcut.bulk.engines.ray_engine")
    monkeypatch.setenv("WALKCUT_STATE_DIR", str(tmp_path / "state"))
    result = walkcut("prelabel", write_images(tmp_path / "in", 1), "--out", tmp_path / "out", "--engine", "ray")
    assert result.exit_code == 1
    assert "--engine ray needs Ray" in result.stderr
    assert "pip install 'walkcut[ray]'" in result.stderr
    assert not (tmp_path / "out").exists()


def make_engine(name: str, device: str = "cpu", model: str = "classical") -> partial[Any]:
    options = EngineOptions(name, replace(Settings(), device=device, model=model), workers=3, cpus=2)
    engine = options.make_engine(make_plan(), Path("out"), quick_segmenter())
    assert isinstance(engine, partial)
    return engine


def test_the_engine_fits_the_model_and_its_device() -> None:
    assert make_engine("local").func is local.model_per_process
    assert make_engine("local", model="hed").func is local.model_per_process
    assert make_engine("local", model="dino").func is local.shared_model
    assert make_engine("local", "cuda").func is local.shared_model
    engine = make_engine("ray", model="dino")
    assert engine.func is ray_engine.in_cluster
    assert engine.keywords == {"tree_dir": None, "processes": 3}
    assert [(stage.cpus, stage.gpus) for stage in engine.args[0]] == [(2, 0)]


def test_each_process_of_a_cluster_has_the_one_gpu_that_ray_gives_it() -> None:
    stages = make_engine("ray", "cuda:1").args[0]
    assert [stage.gpus for stage in stages] == [0, 1, 0]
    (make_segmenter,) = stages[1].make_worker.args
    assert make_segmenter.args[0].device == "cuda"


def test_the_driver_of_a_cluster_needs_no_gpu() -> None:
    settings = replace(Settings(), device="cuda:99")
    assert EngineOptions("ray", settings).make_segmenter().device.type == "cpu"
