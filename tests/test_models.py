"""Which model `auto` is."""

from pathlib import Path

import pytest

from walkcut.models import AUTO, CLASSICAL, HED, choose_model, hed_file, is_onnx, split_pair


def test_auto_is_hed_once_its_weights_are_there(tmp_path: Path) -> None:
    assert choose_model(AUTO, tmp_path) == CLASSICAL
    hed_file(tmp_path).touch()
    assert choose_model(AUTO, tmp_path) == HED


def test_weights_are_by_default_in_the_users_data_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("walkcut.models.user_data_path", lambda name: tmp_path / name)
    assert choose_model(AUTO) == CLASSICAL
    assert hed_file() == tmp_path / "walkcut" / "weights" / "hed.safetensors"
    hed_file().parent.mkdir(parents=True)
    hed_file().touch()
    assert choose_model(AUTO) == HED


def test_auto_may_be_the_first_of_a_pair(tmp_path: Path) -> None:
    assert choose_model("auto+dino", tmp_path) == "classical+dino"
    hed_file(tmp_path).touch()
    assert choose_model("auto+dino", tmp_path) == "hed+dino"


@pytest.mark.parametrize(
    ("name", "pair"),
    [
        ("hed+sd14", ("hed", "sd14")),
        ("classical+owner/name", ("classical", "owner/name")),
        ("nets/c++/edges.onnx+dino", ("nets/c++/edges.onnx", "dino")),
        ("hed+c++/edges.onnx", ("hed", "c++/edges.onnx")),
        ("dino+hed+sd14", ("dino", "hed+sd14")),
        ("hed", None),
        ("c++/edges.onnx", None),
    ],
)
def test_a_pair_is_split_after_its_first_model(name: str, pair: tuple[str, str] | None) -> None:
    assert split_pair(name) == pair
    assert is_onnx(name) == (pair is None and name != "hed")


def test_a_file_with_a_plus_is_no_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hed+edges.onnx").touch()
    assert split_pair("hed+edges.onnx") is None
    assert is_onnx("hed+edges.onnx")


@pytest.mark.parametrize("name", ["dino", "owner/name", "nonsense"])
def test_other_names_stay(name: str) -> None:
    assert choose_model(name) == name
