"""Files of a run's folder: settings, state, staged and assembled files."""

import fcntl
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from walkcut.bulk.jsonl import truncate_partial_line
from walkcut.errors import SettingsError
from walkcut.storage import atomic_file

FAILED = "failed.jsonl"  # a line for each failed image
REPORT = "report.json"
STATE = ".walkcut"
DONE = f"{STATE}/done.jsonl"  # a line for each finished image
STAGING = f"{STATE}/parts"  # files of images that are not in the checkpoint yet, while that is open

_RUN = f"{STATE}/run.json"  # the run's settings
_ASSEMBLED = f"{STATE}/assembled.json"  # the names of files that describe all images
_LOCK = "lock"


def stage_files(output_dir: Path, files: Mapping[str, bytes]) -> dict[str, str]:
    """Write output files under temporary names, from any process; return the temporary name of each.

    `Checkpoint.save` moves them to their final names; the others are deleted when the checkpoint is closed or opened.
    Raises `SettingsError` for a folder that cannot be written to.
    """
    names = {name: secrets.token_hex(16) for name in files}
    try:
        for name, staged in names.items():
            (output_dir / STAGING / staged).write_bytes(files[name])
    except OSError as error:
        raise SettingsError(
            f"{output_dir} cannot be written to ({error}): free disk space, and make sure that no other run was "
            "started there; the same command continues from here"
        ) from error
    return names


@contextmanager
def locked(output_dir: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder; the system frees the lock however this process ends."""
    with (output_dir / STATE / _LOCK).open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(
                f"another process is using {output_dir}: wait until it has ended, or choose another --out"
            ) from error
        yield


def require_run_or_empty(output_dir: Path) -> None:
    """Raise `SettingsError` for a folder that holds other files than those of a run."""
    if not output_dir.exists() or (output_dir / _RUN).exists():
        return
    foreign = next((path.name for path in output_dir.iterdir() if path.name != STATE), None)
    if foreign is not None:
        raise SettingsError(
            f"{output_dir} holds other files, such as {foreign}: choose a new or an empty folder as --out"
        )


def read_run_settings(output_dir: Path) -> dict[str, Any]:
    """Return the settings of the run in a folder. Raises `SettingsError` if there is none."""
    try:
        return dict(json.loads((output_dir / _RUN).read_bytes()))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{output_dir} holds no run of `walkcut prelabel`: give the --out folder of one") from error


def check_run_settings(output_dir: Path, run_settings: Mapping[str, Any]) -> None:
    """Store a new run's settings. Raises `SettingsError` if the folder holds a run with other settings."""
    path = output_dir / _RUN
    if not path.exists():
        with atomic_file(path) as write:
            write(json.dumps(run_settings, indent=2).encode() + b"\n")
    stored = read_run_settings(output_dir)
    changes = "; ".join(
        f"{name} was {stored.get(name)!s:.80}, now {run_settings.get(name)!s:.80}"
        for name in {**stored, **run_settings}
        if stored.get(name) != run_settings.get(name)
    )
    if changes:
        raise SettingsError(
            f"{output_dir} holds a run with other settings ({changes}): use the same settings, choose another --out, "
            "or pass --restart, which deletes the results of that run"
        )


def assembled_files(output_dir: Path) -> list[str]:
    """Return the names of the files that describe all images."""
    path = output_dir / _ASSEMBLED
    return list(json.loads(path.read_bytes())) if path.exists() else []


def save_assembled_files(output_dir: Path, names: Iterable[str]) -> None:
    """Store the names of the files that describe all images."""
    with atomic_file(output_dir / _ASSEMBLED) as write:
        write(json.dumps(sorted(names)).encode())


def delete_run(output_dir: Path) -> None:
    """Delete all files of the run in a folder, and no others."""
    with truncate_partial_line(output_dir / DONE).open("rb") as lines:
        for line in lines:
            delete_files(output_dir, json.loads(line)["files"])
    delete_files(output_dir, [*assembled_files(output_dir), FAILED, REPORT])
    for path in (output_dir / STATE).iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def delete_files(output_dir: Path, names: Iterable[str]) -> None:
    """Delete files below a folder, and its subfolders that become empty."""
    for name in names:
        (output_dir / name).unlink(missing_ok=True)
        for folder in Path(name).parents[:-1]:
            with suppress(OSError):  # it is not empty
                (output_dir / folder).rmdir()
