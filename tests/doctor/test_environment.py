import random
import shutil
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
from sqlalchemy import create_engine

from tests.builders.onnx_files import write_network
from tests.builders.tiny_diffusion import write_folder
from walkcut.doctor import environment
from walkcut.doctor.checks import Finding
from walkcut.errors import SettingsError
from walkcut.settings import Settings
from walkcut.storage import AnnotationRow, ProjectStore


def only(findings: Iterable[Finding]) -> tuple[str, str, str]:
    (finding,) = findings
    return finding.severity, finding.message, finding.remedy


def test_versions_are_named() -> None:
    severity, message, _ = only(environment.check_packages())
    assert severity == "ok"
    assert f"torch {torch.__version__.split('+')[0]}" in message


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        if package == "diffusers":
            raise PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr(environment, "version", version)
    _, missing = environment.check_packages()
    assert (missing.severity, missing.message) == ("error", "diffusers not installed")


def test_the_classical_model_needs_only_a_cpu() -> None:
    severity, message, _ = only(environment.check_device(Settings(model="classical")))
    assert (severity, message.split(" (")[0]) == ("ok", "the classical model runs on the CPU")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA")
@pytest.mark.parametrize(
    ("built", "remedy"), [(None, "this PyTorch is built without CUDA"), ("13.0", "check that `nvidia-smi` lists a GPU")]
)
def test_cuda_that_is_configured_but_absent(monkeypatch: pytest.MonkeyPatch, built: str | None, remedy: str) -> None:
    monkeypatch.setattr(torch.version, "cuda", built)
    with pytest.raises(
        SettingsError, match=rf"WALKCUT_DEVICE='cuda' cannot be used here .*: {remedy}.*WALKCUT_DEVICE=cpu"
    ):
        list(environment.check_device(Settings(model="sd14", device="cuda")))


def test_an_unknown_device() -> None:
    with pytest.raises(SettingsError, match=r"WALKCUT_DEVICE='toaster' cannot be used here .*: set it to cpu, cuda"):
        list(environment.check_device(Settings(device="toaster")))


def test_a_gpu_that_is_not_used_and_a_slow_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    supported, slow, idle = environment.check_device(Settings(model="sd14", dtype="float16"))
    assert (supported.severity, supported.message) == ("ok", "cpu supports float16")
    assert (slow.severity, "bfloat16" in slow.remedy) == ("warning", True)
    assert (idle.severity, idle.remedy) == ("warning", "set WALKCUT_DEVICE=cuda")


def test_weights_are_found_by_name_and_not_read(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", "sd15")
    for path in (tmp_path / "model").rglob("*.safetensors"):
        path.write_bytes(b"nothing that could be read")
    severity, message, _ = only(environment.check_weights(Settings(model=str(tmp_path / "model"))))
    assert (severity, message) == ("ok", f"the weights of {tmp_path / 'model'} are in {tmp_path / 'model'}")


@pytest.mark.parametrize(
    ("model", "command"), [("sd14", "hf download"), ("dino", "hf download"), ("hed", "walkcut models fetch hed")]
)
def test_weights_that_are_missing_are_named_with_the_command_that_fetches_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, command: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(SettingsError, match=f"run `{command}"):
        list(environment.check_weights(Settings(model=model, weights_dir=tmp_path)))


def test_both_models_of_a_pair_are_checked(tmp_path: Path) -> None:
    network = write_network(tmp_path / "net.onnx")
    model = write_folder(tmp_path / "model", "sd15")
    first, second = environment.check_weights(Settings(model=f"{network}+{model}"))
    assert first.message == f"the weights of {network} can be loaded"
    assert second.message == f"the weights of {model} are in {model}"
    with pytest.raises(SettingsError, match="sd14 gives no contour: choose"):
        list(environment.check_weights(Settings(model="sd14+dino")))


def test_a_state_folder_that_exists_or_can_be_created(tmp_path: Path) -> None:
    (existing, disk), (missing, _) = (
        list(environment.check_state(Settings(state_dir=folder, cache_bytes=0)))
        for folder in (tmp_path, tmp_path / "a" / "b")
    )
    assert (existing.severity, existing.message) == ("ok", f"{tmp_path} is writable")
    assert (missing.severity, missing.message) == ("ok", f"{tmp_path / 'a' / 'b'} can be created")
    assert disk.check == "disk"
    assert list(tmp_path.iterdir()) == []


def test_a_state_folder_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    severity, message, remedy = only(environment.check_state(Settings(state_dir=tmp_path / "file" / "state")))
    assert (severity, "is not writable (Not a directory)" in message) == ("error", True)
    assert "set WALKCUT_STATE_DIR" in remedy


@pytest.mark.parametrize(
    ("free", "severity", "remedy"),
    [
        (100 << 20, "error", "free some space: without it"),
        (
            1 << 30,
            "warning",
            f"free some space, or set WALKCUT_CACHE_BYTES to at most {(1 << 30) + (1 << 20) - (200 << 20)}",
        ),
        ((2 << 30) + (100 << 20), "warning", "free some space, or set"),
        (4 << 30, "ok", ""),
    ],
)
def test_the_disk_has_space_for_the_cut_trees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, severity: str, remedy: str
) -> None:
    (tmp_path / "trees").mkdir()
    (tmp_path / "trees" / "a.tree.npz").write_bytes(bytes(1 << 20))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(8 << 30, 0, free))
    _, disk = environment.check_state(Settings(state_dir=tmp_path, cache_bytes=2 << 30))
    assert disk.severity == severity
    assert disk.remedy.startswith(remedy)


def test_a_new_database_is_not_created_by_the_check(tmp_path: Path) -> None:
    severity, message, _ = only(environment.check_database(Settings(state_dir=tmp_path)))
    assert (severity, "will be created" in message) == ("ok", True)
    assert list(tmp_path.iterdir()) == []


def test_a_sound_database_and_a_damaged_one(tmp_path: Path) -> None:
    store = ProjectStore(tmp_path)
    for index in range(200):
        store.annotations.save(row(index))
    store.close()
    assert only(environment.check_database(Settings(state_dir=tmp_path)))[0] == "ok"
    file = tmp_path / "walkcut.sqlite3"
    content = bytearray(file.read_bytes())
    content[-20000:-4096] = bytes(20000 - 4096)
    file.write_bytes(content)
    severity, message, remedy = only(environment.check_database(Settings(state_dir=tmp_path)))
    assert (severity, "is damaged: " in message) == ("error", True)
    assert "walkcut repair" in remedy


def row(index: int) -> AnnotationRow:
    updated = datetime(2026, 11, 20, tzinfo=timezone.utc)
    return AnnotationRow("3", index, 1, updated, {"n": random.Random(index).randbytes(200).hex()})


def test_annotations_that_were_set_aside_are_counted(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    assert list(environment.check_backlog(settings)) == [], "there is no database yet"
    with closing(ProjectStore(tmp_path)) as store:
        for index in range(3):
            store.annotations.save(row(index))
        assert only(environment.check_backlog(settings))[:2] == ("ok", "3 wait to be learned from, none is set aside")
        store.annotations.postpone(row(1), 9e9, "it is odd")
    severity, message, remedy = only(environment.check_backlog(settings))
    assert (severity, message) == ("warning", "1 could not be learned from, 2 wait")
    assert "walkcut project show ID" in remedy


def test_a_postgresql_database_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = create_engine("postgresql+psycopg://me:hunter22@db/walkcut")
    monkeypatch.setattr("walkcut.storage.database.open_database", lambda *_: engine)
    severity, message, _ = only(
        environment.check_database(Settings(database_url="postgresql://me:hunter22@db/walkcut"))
    )
    assert (severity, message) == ("ok", "postgresql+psycopg://me:***@db/walkcut can be used")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "walkcut.sqlite3").write_bytes(b"no database" * 99)
    with pytest.raises(SettingsError, match="file is not a database"):
        list(environment.check_database(Settings(state_dir=tmp_path)))
