"""Checks of the machine: versions, device, weights, state folder, disk and database."""

import platform
import shutil
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile

from walkcut.backbones import Weights, load_backbone
from walkcut.backbones.combined import check_pair
from walkcut.backbones.devices import cpu_threads, describe_device, has_cuda, make_device, make_dtype
from walkcut.backbones.weights import check_dtype, find_weights
from walkcut.doctor.checks import Finding
from walkcut.models import CLASSICAL, DINO, HED, is_onnx, split_pair
from walkcut.settings import Settings
from walkcut.storage import ProjectStore
from walkcut.storage.database import check_integrity
from walkcut.storage.sqlite_file import REPAIR

_PACKAGES = ("walkcut", "torch", "diffusers", "transformers")
_MIN_FREE = 200 << 20  # bytes, for the database and the next images


def check_packages() -> Iterator[Finding]:
    """List the versions of Python and of the main packages."""
    versions, missing = [f"Python {platform.python_version()}"], []
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    yield Finding("versions", "ok", ", ".join(versions))
    if missing:
        yield Finding("versions", "error", f"{', '.join(missing)} not installed", "reinstall walkcut with pip")


def check_device(settings: Settings) -> Iterator[Finding]:
    """Check the device and the precision, and look for a better choice. Raises `SettingsError`."""
    device = make_device(settings.device)
    if settings.model == CLASSICAL:
        yield Finding("device", "ok", f"the classical model runs on the CPU ({cpu_threads()} threads)")
        return
    check_dtype(make_dtype(settings.dtype), device)
    yield Finding("device", "ok", f"{describe_device(device)} supports {settings.dtype}")
    if device.type == "cpu" and settings.dtype == "float16":
        yield Finding("device", "warning", "float16 is slow on a CPU", "set WALKCUT_DTYPE to bfloat16 or float32")
    if device.type == "cpu" and has_cuda():
        yield Finding("device", "warning", "this machine has a GPU that is not used", "set WALKCUT_DEVICE=cuda")


def check_weights(settings: Settings) -> Iterator[Finding]:
    """Check that the files of the model, or of both of a pair, exist. Raises `SettingsError`.

    Only hed, dino and ONNX networks, which are small, are loaded.
    """
    pair = split_pair(settings.model)
    if pair is not None:
        check_pair(*pair)
    for model in pair or (settings.model,):
        yield _check_weights_of(model, settings.weights_dir)


def _check_weights_of(model: str, folder: Path | None) -> Finding:
    if model == CLASSICAL:
        better = "`walkcut models fetch hed` fetches a model that finds contours better"
        return Finding("weights", "ok", f"the classical model has no weights; {better}")
    if model in (HED, DINO) or is_onnx(model):
        load_backbone(model, weights=Weights(folder))
        return Finding("weights", "ok", f"the weights of {model} can be loaded")
    return Finding("weights", "ok", f"the weights of {model} are in {find_weights(model, folder)}")


def check_state(settings: Settings) -> Iterator[Finding]:
    """Check that the state folder is writable, and its disk large enough for the cut trees."""
    folder = settings.state_dir
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        with TemporaryFile(dir=existing) as file:
            file.write(b"walkcut")
    except OSError as error:
        remedy = "make it writable for the user that runs walkcut, or set WALKCUT_STATE_DIR to another folder"
        yield Finding("state", "error", f"{folder} is not writable ({error.strerror})", remedy)
        return
    yield Finding("state", "ok", f"{folder} is writable" if existing == folder else f"{folder} can be created")
    yield _check_disk(settings, shutil.disk_usage(existing).free)


def _check_disk(settings: Settings, free: int) -> Finding:
    """Check that the free bytes suffice for the rest of the cut trees."""
    used = sum(_file_size(path) for path in (settings.state_dir / "trees").glob("*.npz"))
    needed = max(0, settings.cache_bytes - used)
    message = f"{_gib(free)} free; cut trees use {_gib(used)} of {_gib(settings.cache_bytes)}"
    if free < _MIN_FREE:
        return Finding("disk", "error", message, "free some space: without it no annotation can be stored")
    if free < needed + _MIN_FREE:
        remedy = f"free some space, or set WALKCUT_CACHE_BYTES to at most {free + used - _MIN_FREE}"
        return Finding("disk", "warning", message, remedy)
    return Finding("disk", "ok", message)


def check_database(settings: Settings) -> Iterator[Finding]:
    """Check that the database opens, and an SQLite file for damage. Raises `SettingsError`."""
    file = settings.state_dir / "walkcut.sqlite3"
    if not settings.database_url and not file.exists():
        yield Finding("database", "ok", f"{file} will be created at the first start")
    elif not (database := check_integrity(settings.state_dir, settings.database_url)).damage:
        yield Finding("database", "ok", f"{database.url} can be used")
    else:
        yield Finding("database", "error", f"{database.url} is damaged: {database.damage}", REPAIR)


def check_backlog(settings: Settings) -> Iterator[Finding]:
    """Check that no annotation was set aside. Raises `SettingsError` or `StoreError`."""
    if not (settings.database_url or (settings.state_dir / "walkcut.sqlite3").exists()):
        return
    with closing(ProjectStore(settings.state_dir, settings.database_url)) as store:
        backlog = store.annotations.backlog()
    if not backlog.set_aside:
        yield Finding("annotations", "ok", f"{backlog.pending} wait to be learned from, none is set aside")
        return
    message = f"{backlog.set_aside} could not be learned from, {backlog.pending} wait"
    yield Finding("annotations", "warning", message, "`walkcut project show ID` names them with the reasons")


def _file_size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # evicted meanwhile
        return 0


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
