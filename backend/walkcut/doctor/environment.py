"""The machine that walkcut runs on: versions, device, weights, state folder and database."""

import platform
import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryFile

import torch
from sqlalchemy import Engine, text
from sqlalchemy.exc import DatabaseError

from walkcut.backbones import CLASSICAL, DINO, Weights, load_backbone
from walkcut.backbones.weights import check_dtype, find_weights
from walkcut.doctor.checks import Finding
from walkcut.settings import Settings
from walkcut.storage.database import open_database

_PACKAGES = ("walkcut", "torch", "diffusers", "transformers", "label-studio-sdk")
_ROOM = 200 << 20  # bytes that the database, and the next images, need at least


def check_versions() -> Iterator[Finding]:
    """Python and the packages that matter most."""
    found, missing = [f"Python {platform.python_version()}"], []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            missing.append(package)
    yield Finding("versions", "ok", ", ".join(found))
    if missing:
        yield Finding("versions", "error", f"{', '.join(missing)} not installed", "install walkcut anew with pip")


def check_device(settings: Settings) -> Iterator[Finding]:
    """Whether the device computes in the precision of the settings, and whether a better one lies idle."""
    try:
        device = torch.device(settings.device)
        torch.ones(2, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        yield Finding("device", "error", f"{settings.device} cannot be used: {reason}", _device_remedy(settings.device))
        return
    if settings.model == CLASSICAL:
        yield Finding("device", "ok", f"the classical model runs on the CPU ({torch.get_num_threads()} threads)")
        return
    check_dtype(getattr(torch, settings.dtype), device)
    yield Finding("device", "ok", f"{_described(device)} computes in {settings.dtype}")
    if device.type == "cpu" and settings.dtype == "float16":
        yield Finding(
            "device", "warning", "float16 is slow on a CPU", "set WALKCUT_DTYPE to bfloat16, or to float32 without it"
        )
    if device.type == "cpu" and torch.cuda.is_available():
        yield Finding("device", "warning", "there is a GPU that is not used", "set WALKCUT_DEVICE=cuda")


def _described(device: torch.device) -> str:
    if device.type != "cuda":
        return str(device)
    free, total = (size >> 30 for size in torch.cuda.mem_get_info(device))
    return f"{device} ({torch.cuda.get_device_name(device)}, {free} of {total} GiB free)"


def _device_remedy(name: str) -> str:
    if not name.startswith("cuda"):
        return "set WALKCUT_DEVICE to cpu, cuda or cuda:1"
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA: install one with it, or set WALKCUT_DEVICE=cpu"
    if torch.cuda.is_available():
        return f"there are {torch.cuda.device_count()} GPUs, from cuda:0 on: set WALKCUT_DEVICE to one of them"
    return (
        "see that `nvidia-smi` shows a GPU; a container needs the NVIDIA container toolkit and `--gpus all`; "
        "or set WALKCUT_DEVICE=cpu"
    )


def check_weights(settings: Settings) -> Iterator[Finding]:
    """Whether the model's files are there, by name; only dino, which is small, is read. Raises `SettingsError`."""
    if settings.model == CLASSICAL:
        yield Finding("weights", "ok", "the model classical needs none")
    elif settings.model == DINO:
        load_backbone(DINO, weights=Weights(settings.weights_dir))
        yield Finding("weights", "ok", "dino is there and can be read")
    else:
        yield Finding("weights", "ok", f"{settings.model} lies in {find_weights(settings.model, settings.weights_dir)}")


def check_state(settings: Settings) -> Iterator[Finding]:
    """Whether the state folder can be written to, and the disk has room for the cut trees that may be kept."""
    folder = settings.state_dir
    try:
        there = _nearest(folder)
        with TemporaryFile(dir=there) as file:
            file.write(b"walkcut")
    except OSError as error:
        remedy = "give it to the user that walkcut runs as, or set WALKCUT_STATE_DIR to a folder of your own"
        yield Finding("state", "error", f"{folder} cannot be written to ({error.strerror})", remedy)
        return
    yield Finding("state", "ok", f"{folder} can be written to" if there == folder else f"{folder} can be made")
    yield from _room(settings, shutil.disk_usage(there).free)


def _room(settings: Settings, free: int) -> Iterator[Finding]:
    """Whether the free bytes last for what may still be kept."""
    used = sum(_bytes(path) for path in (settings.state_dir / "trees").glob("*.npz"))
    wanted = max(0, settings.cache_bytes - used)
    said = f"{_size(free)} free on its disk, {_size(used)} of {_size(settings.cache_bytes)} for cut trees in use"
    if free < _ROOM:
        yield Finding("disk", "error", said, "make room: without it nothing that annotators submit can be kept")
    elif free < wanted + _ROOM:
        remedy = f"make room, or set WALKCUT_CACHE_BYTES to at most {free + used - _ROOM}"
        yield Finding("disk", "warning", said, remedy)
    else:
        yield Finding("disk", "ok", said)


def check_database(settings: Settings) -> Iterator[Finding]:
    """Whether the database opens; SQLite's own quick check of its file. Raises `SettingsError`."""
    file = settings.state_dir / "walkcut.sqlite3"
    if not settings.database_url and not file.exists():
        yield Finding("database", "ok", f"{file} will be made by the first start")
        return
    engine = open_database(settings.state_dir, settings.database_url)
    place = engine.url.set(query={}).render_as_string()
    if engine.dialect.name != "sqlite":
        yield Finding("database", "ok", f"{place} answers")
    elif (said := _sqlite_says(engine)) == "ok":
        yield Finding("database", "ok", f"{place} is sound")
    else:
        remedy = (
            "stop walkcut, put the file back from a backup or move it away, then run `walkcut project sync ID` for "
            "each project: Label Studio still holds what annotators submitted"
        )
        yield Finding("database", "error", f"{place} is damaged: {said}", remedy)
    engine.dispose()


def _sqlite_says(engine: Engine) -> str:
    """The first thing that SQLite finds wrong with its file, or "ok"."""
    try:
        with engine.connect() as connection:
            return str(connection.execute(text("PRAGMA quick_check(1)")).scalar())
    except DatabaseError as error:
        return str(error.orig)


def _bytes(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:  # evicted meanwhile
        return 0


def _nearest(folder: Path) -> Path:
    """The folder, or the nearest one above it that there is."""
    return next(each for each in (folder, *folder.absolute().parents) if each.exists())


def _size(count: int) -> str:
    return f"{count / (1 << 30):.1f} GiB"
