"""State of a run on disk: an interrupted run continues from its checkpoint.

An image's line is written after its files are complete: workers stage the files, and the checkpoint moves them to
their final names.
"""

import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from walkcut.bulk.files import delete_files, delete_if_empty, move, write_or_link
from walkcut.bulk.formats import Format
from walkcut.bulk.items import CheckpointEntry, Item, ItemFailure, ItemResult, SkipCount, Skipped
from walkcut.bulk.jsonl import (
    HashSet64,
    Stamps,
    append_line,
    external_sort,
    keys,
    line_key,
    temporary_dir,
    truncate_partial_line,
)
from walkcut.bulk.sources.uris import UNKNOWN_STATE, digest, shown
from walkcut.errors import SettingsError
from walkcut.images import redacted_text
from walkcut.storage import atomic_file

FAILED = "failed.jsonl"  # a line for each failed image
SKIPPED = "skipped.jsonl"  # a line for each file or task that the last run skipped
REPORT = "report.json"
STAGING = ".walkcut/parts"  # files of images that are not in the checkpoint yet, while that is open

_STATE = ".walkcut"
_DONE = f"{_STATE}/done.jsonl"  # a line for each finished image
_SENDING = f"{_STATE}/sending.jsonl"  # lines of the images whose results are on their way elsewhere
_RUN = f"{_STATE}/run.json"  # the run's settings
_ASSEMBLED = f"{_STATE}/assembled.json"  # the names of files that describe all images
_LOCK = "lock"
_MAX_QUOTED = 80  # characters of a setting in a message


class Checkpoint:
    """Checkpoint of the run in a folder, for the one process that may write there; see `open_checkpoint`."""

    def __init__(self, output_dir: Path, done_file: IO[bytes], failed_file: IO[bytes], skipped_file: IO[bytes]) -> None:
        self._output_dir, self._done_file, self._failed_file = output_dir, done_file, failed_file
        self._skipped_file = skipped_file
        self._finished, self._failed = Stamps(output_dir / _DONE), HashSet64(keys(output_dir / FAILED))
        self.skipped: dict[str, SkipCount] = {}  # by reason

    @property
    def done(self) -> int:
        """Number of finished images."""
        return len(self._finished.keys)

    @property
    def failed(self) -> int:
        """Number of failed images."""
        return len(self._failed)

    def is_done(self, key: str) -> bool:
        """Return whether an image is finished or has failed."""
        return key in self._finished.keys or self.has_failed(key)

    def has_failed(self, key: str) -> bool:
        """Return whether an image has failed."""
        return bool(self._failed) and redacted_key(key) in self._failed

    def has_changed(self, item: Item) -> bool:
        """Return whether a finished image has changed since, as far as its stamp tells."""
        return self._finished.has_changed(item.key, item.stamp)

    def save(self, result: ItemResult) -> None:
        """Move an image's files to their final names, then write its line."""
        for name, staged in result.files.items():
            move(self._output_dir / STAGING / staged, self._output_dir / name)
        append_line(self._done_file, result.to_json())
        self._finished.add(result.item.key, result.item.stamp)

    def fail(self, failure: ItemFailure) -> None:
        """Write the line of a failed image."""
        key = redacted_key(failure.key)
        append_line(self._failed_file, asdict(replace(failure, key=key, reference=shown(failure.reference))))
        self._failed.add(key)

    def skip(self, skipped: Skipped) -> None:
        """Count a file or task that is skipped, unless it was finished before, and write its line."""
        if skipped.key and self.is_done(skipped.key):
            return
        append_line(self._skipped_file, asdict(replace(skipped, key=redacted_key(skipped.key))))
        self.skipped.setdefault(skipped.reason, SkipCount()).add(skipped)

    def announce(self, results: Sequence[ItemResult]) -> None:
        """Write the lines of images before their results are sent elsewhere, in place of those announced before.

        A process that is killed between sending them and saving the images leaves them to `announced`.
        """
        with atomic_file(self._output_dir / _SENDING) as write:
            for result in results:
                write(json.dumps(result.to_json()).encode() + b"\n")

    def announced(self) -> Iterator[ItemResult]:
        """Yield the announced images that are not saved: their results may have been sent or not."""
        path = self._output_dir / _SENDING
        for line in path.read_bytes().splitlines() if path.exists() else ():
            row = json.loads(line)
            if not self.is_done(row["key"]):
                yield ItemResult(Item.from_json(row), {}, row["record"], row["tree_key"], 0, {})

    def assemble(self, output_format: Format) -> None:
        """Write the files that describe all finished images, in place of those assembled before."""
        state = self._output_dir / _STATE
        with temporary_dir(state / "sorting") as sorting, temporary_dir(state / "assembling") as assembling:
            lines = external_sort(self._output_dir / _DONE, sorting)
            output_format.assemble((json.loads(line)["record"] for line in lines), assembling)
            names = [
                path.relative_to(assembling).as_posix() for path in sorted(assembling.rglob("*")) if path.is_file()
            ]
            before = _assembled_files(self._output_dir)
            _save_assembled_files(self._output_dir, {*before, *names})
            delete_files(self._output_dir, set(before) - set(names))
            for name in names:
                move(assembling / name, self._output_dir / name)
        _save_assembled_files(self._output_dir, names)


def redacted_key(key: str) -> str:
    """Return an image's key as lists of failures hold it: with a digest in place of parts that may be secret.

    >>> redacted_key("cam1/f1"), redacted_key("me:secret@h/a")
    ('cam1/f1', '…@h/a-dd71303f')
    """
    text = redacted_text(key)
    return key if text == key.strip() else f"{text}-{digest(key)[:8]}"


def stage_files(output_dir: Path, files: Mapping[str, bytes | Path]) -> dict[str, str]:
    """Write output files, and links, under temporary names, from any process; return the temporary name of each.

    `Checkpoint.save` moves them to their final names; the others are deleted when the checkpoint is closed or opened.
    Raises `SettingsError` for a folder that cannot be written to.
    """
    names = {name: secrets.token_hex(16) for name in files}
    try:
        for name, staged in names.items():
            write_or_link(output_dir / STAGING / staged, files[name])
    except OSError as error:
        raise SettingsError(
            f"{output_dir} cannot be written to ({error}): free disk space, and make sure that no other run was "
            "started there; the same command continues from here"
        ) from error
    return names


@contextmanager
def open_checkpoint(
    output_dir: Path,
    run_settings: Mapping[str, Any],
    *,
    restart: bool = False,
    retry_failed: bool = False,
    relisted: Callable[[], Iterable[Item]] | None = None,
) -> Iterator[Checkpoint]:
    """Open the checkpoint of the run with these settings (JSON), or start one in a new or empty folder.

    `restart` deletes the run that is there first; `retry_failed` forgets its failures. `relisted` lists the images as
    they are now: results of those that have changed, or of which that is not known, are deleted. Raises
    `SettingsError` for a folder with a run of other settings, with other files, or in use by another process.
    """
    _require_run_or_empty(output_dir)
    (output_dir / _STATE).mkdir(parents=True, exist_ok=True)
    failed_path = output_dir / FAILED
    with ExitStack() as stack:
        stack.enter_context(_locked(output_dir))
        if restart:
            _delete_run(output_dir)
        _check_run_settings(output_dir, run_settings)
        if retry_failed:
            failed_path.unlink(missing_ok=True)
        truncate_partial_line(output_dir / _DONE)
        if relisted is not None:
            _delete_changed(output_dir, relisted())
        (output_dir / SKIPPED).unlink(missing_ok=True)  # each run lists them again
        stack.enter_context(temporary_dir(output_dir / STAGING))
        files = []
        for path in (output_dir / _DONE, failed_path, output_dir / SKIPPED):
            stack.callback(delete_if_empty, path)
            files.append(stack.enter_context(truncate_partial_line(path).open("ab")))
        yield Checkpoint(output_dir, *files)


def read_entries(output_dir: Path) -> Iterator[CheckpointEntry]:
    """Yield a run's finished images in the order of their keys. Raises `SettingsError` if the folder is in use."""
    read_run_settings(output_dir)
    with _locked(output_dir), temporary_dir(output_dir / _STATE / "sorting") as sorting:
        for line in external_sort(truncate_partial_line(output_dir / _DONE), sorting):
            row = json.loads(line)
            yield CheckpointEntry(Item.from_json(row), row["tree_key"])


def read_run_settings(output_dir: Path) -> dict[str, Any]:
    """Return the settings of the run in a folder. Raises `SettingsError` if there is none."""
    try:
        return dict(json.loads((output_dir / _RUN).read_bytes()))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{output_dir} holds no run of `walkcut prelabel`: give the --out folder of one") from error


def _delete_changed(output_dir: Path, items: Iterable[Item]) -> None:
    """Delete the lines and files of finished images that have changed, or of which that is not known."""
    path = output_dir / _DONE
    finished = Stamps(path)
    changed = HashSet64(
        item.key for item in items if item.stamp.startswith(UNKNOWN_STATE) or finished.has_changed(item.key, item.stamp)
    )
    names: list[str] = []
    with atomic_file(path) as write, path.open("rb") as lines:
        for line in lines:
            if line_key(line) in changed:
                names += json.loads(line)["files"]
            else:
                write(line)
    delete_files(output_dir, names)


def _check_run_settings(output_dir: Path, run_settings: Mapping[str, Any]) -> None:
    """Store a new run's settings. Raises `SettingsError` if the folder holds a run with other settings."""
    path = output_dir / _RUN
    if not path.exists():
        with atomic_file(path) as write:
            write(json.dumps(run_settings, indent=2).encode() + b"\n")
    stored = read_run_settings(output_dir)
    changed = [name for name in {**stored, **run_settings} if stored.get(name) != run_settings.get(name)]
    values = {name: (str(stored.get(name)), str(run_settings.get(name))) for name in changed}
    changes = "; ".join(
        f"{name} was {old}, now {new}" if max(len(old), len(new)) <= _MAX_QUOTED else f"other {name}"
        for name, (old, new) in values.items()
    )
    if changes:
        raise SettingsError(
            f"{output_dir} holds a run with other settings ({changes}): use the same settings, choose another --out, "
            "or pass --restart, which deletes the results of that run"
        )


@contextmanager
def _locked(output_dir: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder; the system frees the lock however this process ends."""
    with ExitStack() as stack:
        try:
            stack.enter_context(FileLock(output_dir / _STATE / _LOCK, timeout=0))
        except Timeout as error:
            raise SettingsError(
                f"another process is using {output_dir}: wait until it has ended, or choose another --out"
            ) from error
        yield


def _require_run_or_empty(output_dir: Path) -> None:
    if not output_dir.exists() or (output_dir / _RUN).exists():
        return
    foreign = next((path.name for path in output_dir.iterdir() if path.name != _STATE), None)
    if foreign is not None:
        raise SettingsError(
            f"{output_dir} holds other files, such as {foreign}: choose a new or an empty folder as --out"
        )


def _assembled_files(output_dir: Path) -> list[str]:
    path = output_dir / _ASSEMBLED
    return list(json.loads(path.read_bytes())) if path.exists() else []


def _save_assembled_files(output_dir: Path, names: Iterable[str]) -> None:
    with atomic_file(output_dir / _ASSEMBLED) as write:
        write(json.dumps(sorted(names)).encode())


def _delete_run(output_dir: Path) -> None:
    """Delete all files of the run in a folder, and no others."""
    with truncate_partial_line(output_dir / _DONE).open("rb") as lines:
        for line in lines:
            delete_files(output_dir, json.loads(line)["files"])
    delete_files(output_dir, [*_assembled_files(output_dir), FAILED, SKIPPED, REPORT])
    for path in (output_dir / _STATE).iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
