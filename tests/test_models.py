"""Which model `auto` is."""

from pathlib import Path

import pytest

from walkcut.models import AUTO, CLASSICAL, HED, choose_model, hed_file


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


@pytest.mark.parametrize("name", ["dino", "owner/name", "nonsense"])
def test_other_names_stay(name: str) -> None:
    assert choose_model(name) == name
