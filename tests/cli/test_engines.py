import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.builders.bulk import plan_for, quick_segmenter
from tests.cli.test_prelabel import make_images, walkcut
from walkcut.bulk.engines import local, ray_engine
from walkcut.cli.engines import Engines
from walkcut.settings import Settings


def test_without_ray_it_is_said_how_to_have_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delitem(sys.modules, "walkcut.bulk.engines.ray_engine")
    monkeypatch.delattr("walkcut.bulk.engines.ray_engine")
    monkeypatch.setenv("WALKCUT_STATE_DIR", str(tmp_path / "state"))
    result = walkcut("prelabel", make_images(tmp_path / "in", 1), "--out", tmp_path / "out", "--engine", "ray")
    assert result.exit_code == 1
    assert "--engine ray cannot be had" in result.stderr
    assert "pip install 'walkcut[ray]'" in result.stderr
    assert not (tmp_path / "out").exists()


def chosen(name: str, device: str = "cpu", model: str = "classical") -> partial[Any]:
    engines = Engines(name, replace(Settings(), device=device, model=model), workers=3, cpus=2)
    engine = engines.engine(plan_for(), Path("out"), quick_segmenter())
    assert isinstance(engine, partial)
    return engine


def test_the_engine_fits_the_model_and_its_device() -> None:
    assert chosen("local").func is local.model_per_process
    assert chosen("local", model="dino").func is local.shared_model
    assert chosen("local", "cuda").func is local.shared_model
    assert chosen("ray", model="dino").func is ray_engine.model_per_process
    assert chosen("ray", model="dino").keywords == {"cpus": 2, "processes": 3}


def test_each_process_of_a_cluster_has_the_one_gpu_that_ray_gives_it() -> None:
    engine = chosen("ray", "cuda:1")
    assert engine.func is ray_engine.model_per_gpu
    load = engine.args[2]
    assert load.args[0].device == "cuda"


def test_a_machine_that_asks_a_cluster_needs_no_gpu() -> None:
    settings = replace(Settings(), device="cuda:99")
    assert Engines("ray", settings).segmenter().device.type == "cpu"
