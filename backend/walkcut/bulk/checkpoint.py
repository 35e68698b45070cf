"""What became of each image of a run, on disk: a run that was ended at any moment goes on from there.

In the run's folder, `.walkcut/run.json` holds its settings, `.walkcut/done.jsonl` a line for each image that is done
and `failed.jsonl` one for each that failed. An image's files are complete before its line is written: the processes
at work write them into `.walkcut/parts`, from where the ledger moves them to their places.
"""

import fcntl
import json
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from walkcut.bulk.items import Format, Item
from walkcut.bulk.jsonl import HashSet64, append_line, external_sort, keys, temporary_dir, truncate_partial_line
from walkcut.errors import SettingsError
from walkcut.storage import atomic_file

STATE = ".walkcut"
_DONE = "done.jsonl"
_RUN = "run.json"
_ASSEMBLED = "assembled.json"
_PARTS = "parts"
_MOST_SHOWN = 80  # characters of a setting
FAILED = "failed.jsonl"
REPORT = "report.json"


@dataclass(frozen=True)
class ItemResult:
    """An image that is done, and on disk.

    `files` says which part each of its files is (`write_parts`), `record` goes into the ledger, `tree` is the key of
    its cut tree and `tree_bytes` the size of that, 0 where it was not written, `seconds` what each stage took.
    """

    item: Item
    files: Mapping[str, str]
    record: Mapping[str, Any]
    tree: str
    tree_bytes: int
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class ItemFailure:
    """An image that nothing came of: the stage that failed, and why, with the remedy."""

    key: str
    reference: str
    stage: str
    reason: str


Outcome = ItemResult | ItemFailure


@dataclass(frozen=True)
class CheckpointEntry:
    """A line of the ledger: an image that is done, and the key of its cut tree."""

    item: Item
    tree: str
    files: tuple[str, ...]
    record: Mapping[str, Any]


class Checkpoint:
    """The ledger of the run in a folder, for the one process that may write there; see `open_checkpoint`."""

    def __init__(self, out: Path, lines: IO[bytes], failures: IO[bytes]) -> None:
        self._out, self._lines, self._failures = out, lines, failures
        self._done, self._failed = HashSet64(), HashSet64()
        for key in keys(out / STATE / _DONE):
            self._done.add(key)
        for key in keys(out / FAILED):
            self._failed.add(key)

    @property
    def done(self) -> int:
        """The images that are done."""
        return len(self._done)

    @property
    def failed(self) -> int:
        """The images that failed."""
        return len(self._failed)

    def is_done(self, key: str) -> bool:
        """Whether an image is done or has failed."""
        return key in self._done or key in self._failed

    def has_failed(self, key: str) -> bool:
        """Whether an image has failed."""
        return key in self._failed

    def save(self, done: ItemResult) -> None:
        """Move an image's files to their places, and then write its line."""
        for name, part in done.files.items():
            (self._out / name).parent.mkdir(parents=True, exist_ok=True)
            (parts_folder(self._out) / part).replace(self._out / name)
        line = {
            "key": done.item.key,
            **{name: value for name, value in asdict(done.item).items() if name != "key"},
            "tree": done.tree,
            "files": list(done.files),
            "record": done.record,
        }
        append_line(self._lines, line)
        self._done.add(done.item.key)

    def fail(self, failure: ItemFailure) -> None:
        """Take note of an image that failed."""
        append_line(self._failures, asdict(failure))
        self._failed.add(failure.key)

    def assemble(self, form: Format) -> None:
        """Write what holds all images that are done, instead of what was assembled before."""
        state = self._out / STATE
        with temporary_dir(state / "sorting") as sorting, temporary_dir(state / "assembling") as fresh:
            lines = external_sort(state / _DONE, sorting)
            form.assemble((json.loads(line)["record"] for line in lines), fresh)
            names = [path.relative_to(fresh).as_posix() for path in sorted(fresh.rglob("*")) if path.is_file()]
            before = _assembled(self._out)
            _remember_assembled(self._out, {*before, *names})
            _delete(self._out, set(before) - set(names))
            for name in names:
                (self._out / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).replace(self._out / name)
        _remember_assembled(self._out, names)


def parts_folder(out: Path) -> Path:
    """Where the processes at work write files, for as long as the ledger of the run in `out` is open."""
    return out / STATE / _PARTS


def write_parts(out: Path, files: Mapping[str, bytes]) -> dict[str, str]:
    """Write files for the ledger of the run in `out` to take up, from any process: the part that each name has.

    Parts that it does not take up go when it is closed or opened again. Raises `SettingsError` where that cannot be.
    """
    parts = {name: secrets.token_hex(16) for name in files}
    try:
        for name, part in parts.items():
            (parts_folder(out) / part).write_bytes(files[name])
    except OSError as error:
        raise SettingsError(
            f"{out} cannot be written to ({error}): see that there is room, and that no other run was begun there; the "
            "same command goes on from here"
        ) from error
    return parts


@contextmanager
def open_checkpoint(
    out: Path, fingerprint: Mapping[str, Any], *, restart: bool = False, retry_failed: bool = False
) -> Iterator[Checkpoint]:
    """The ledger of the run with this fingerprint (JSON) in the folder `out`, a new one in a new or empty folder.

    With `restart` what another run wrote there goes first; with `retry_failed` what failed counts as not tried.
    Raises `SettingsError` for a folder with a run of other settings, with other files, or in use by another process.
    """
    state = out / STATE
    others = [] if (state / _RUN).exists() or not out.exists() else [each.name for each in out.iterdir()]
    if found := next((name for name in others if name != STATE), None):
        raise SettingsError(f"{out} holds other files, such as {found}: choose a new or an empty folder as --out")
    state.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(_locked(out))
        if restart:
            _clear(out)
        _check_fingerprint(out, fingerprint)
        if retry_failed:
            (out / FAILED).unlink(missing_ok=True)
        stack.callback(_drop_if_empty, out / FAILED)
        stack.enter_context(temporary_dir(parts_folder(out)))
        lines, failures = (
            stack.enter_context(truncate_partial_line(path).open("ab")) for path in (state / _DONE, out / FAILED)
        )
        yield Checkpoint(out, lines, failures)


def read_fingerprint(out: Path) -> dict[str, Any]:
    """The settings of the run in a folder. Raises `SettingsError` where there is none."""
    try:
        return dict(json.loads((out / STATE / _RUN).read_bytes()))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{out} holds no run of `walkcut prelabel`: name the folder of one") from error


def read_entries(out: Path) -> Iterator[CheckpointEntry]:
    """The images that are done in the run of a folder, in the order of their keys.

    Raises `SettingsError` while another process is at work there.
    """
    read_fingerprint(out)
    with _locked(out), temporary_dir(out / STATE / "sorting") as folder:
        for line in external_sort(truncate_partial_line(out / STATE / _DONE), folder):
            row = json.loads(line)
            item = Item(row["key"], row["reference"], row["data"], row["task"], row["target"])
            yield CheckpointEntry(item, row["tree"], tuple(row["files"]), row["record"])


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keep other processes out of a run's folder; the system lets go of the lock however this process ends."""
    with (out / STATE / "lock").open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise SettingsError(
                f"another process is at work in {out}: wait until it has ended, or choose another --out"
            ) from error
        yield


def _check_fingerprint(out: Path, fingerprint: Mapping[str, Any]) -> None:
    """See that the folder holds the run of these settings, or make it hold it."""
    path = out / STATE / _RUN
    if not path.exists():
        with atomic_file(path) as write:
            write(json.dumps(fingerprint, indent=2).encode() + b"\n")
    held = read_fingerprint(out)
    differing = [name for name in {**held, **fingerprint} if held.get(name) != fingerprint.get(name)]
    if differing:
        changes = "; ".join(
            f"{name} was {_brief(held.get(name))}, now {_brief(fingerprint.get(name))}" for name in differing
        )
        raise SettingsError(
            f"{out} holds a run with other settings ({changes}): go back to those, choose another --out, or start anew "
            "with --restart, which deletes what that run wrote"
        )


def _drop_if_empty(path: Path) -> None:
    if not path.stat().st_size:
        path.unlink()


def _brief(value: object) -> str:
    text = str(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _clear(out: Path) -> None:
    """Delete what a run wrote in its folder, and nothing else."""
    with truncate_partial_line(out / STATE / _DONE).open("rb") as lines:
        for line in lines:
            _delete(out, json.loads(line)["files"])
    _delete(out, [*_assembled(out), FAILED, REPORT])
    for each in (out / STATE).iterdir():
        if each.name != "lock":
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def _assembled(out: Path) -> list[str]:
    """The files that hold all images."""
    path = out / STATE / _ASSEMBLED
    return list(json.loads(path.read_bytes())) if path.exists() else []


def _remember_assembled(out: Path, names: Iterable[str]) -> None:
    with atomic_file(out / STATE / _ASSEMBLED) as write:
        write(json.dumps(sorted(names)).encode())


def _delete(out: Path, names: Iterable[str]) -> None:
    """Delete files below a folder, and the folders below it that this leaves empty."""
    for name in names:
        (out / name).unlink(missing_ok=True)
        for folder in (out / name).relative_to(out).parents[:-1]:
            with suppress(OSError):  # there is something in it
                (out / folder).rmdir()
