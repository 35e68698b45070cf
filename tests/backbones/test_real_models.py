"""Models at full size, with random weights."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.builders.scenes import png, quarters


@pytest.mark.slow
def test_a_full_size_stable_diffusion_runs_on_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "quarters.png").write_bytes(png(quarters(300, 400)))
    command = [
        sys.executable,
        "-m",
        "walkcut",
        "segment",
        str(tmp_path / "quarters.png"),
        "--out",
        str(tmp_path / "out"),
    ]
    options = ["--model", "sd14", "--random-weights", "--granularity", "5"]
    done = subprocess.run([*command, *options], check=True, capture_output=True, text=True)
    assert json.loads(done.stdout)["segments"] == 5
    with Image.open(tmp_path / "out" / "quarters.png") as labels:
        assert np.unique(np.asarray(labels)).tolist() == [1, 2, 3, 4, 5]
        assert labels.size == (400, 300)
