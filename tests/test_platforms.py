"""Other systems than Linux, as far as this one can stand in for them."""

import multiprocessing
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.builders import faulty_backbone
from tests.builders.bulk import echo_worker
from tests.builders.scenes import png, quarters
from walkcut.bulk.engines.local import in_processes
from walkcut.bulk.items import Item, ItemResult
from walkcut.images import DecodeLimits
from walkcut.inference.model import ImageRequest, InProcessModel
from walkcut.inference.process import ModelProcess

IMPORT_ALL = """
import importlib.util, os, pkgutil, signal, sys
for name in ("fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[name] = None
del signal.SIGKILL, os.sched_getaffinity
import walkcut
from walkcut.cli import main, _COMMANDS
for name in _COMMANDS:
    main.get_command(None, name)
"""


@pytest.fixture
def only_spawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start processes as on Windows."""
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])


def test_no_command_needs_modules_that_only_posix_has() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.usefixtures("only_spawn")
def test_the_models_process_can_be_spawned(tmp_path: Path) -> None:
    request = ImageRequest("image", png(quarters(64, 64)))
    load = partial(faulty_backbone.load, tmp_path)
    expected = InProcessModel(load(), DecodeLimits()).segment(request)
    process = ModelProcess(load, DecodeLimits(), timeout=60)
    try:
        process.wait_until_loaded()
        assert process.segment(request).file == expected
    finally:
        process.end()


@pytest.mark.usefixtures("only_spawn")
def test_workers_of_a_run_can_be_spawned() -> None:
    outcomes = [*in_processes(echo_worker, [Item(str(n), "here") for n in range(4)], processes=2)]
    assert sorted(outcome.item.key for outcome in outcomes if isinstance(outcome, ItemResult)) == ["0", "1", "2", "3"]
