"""State of a run on disk: an interrupted run continues from its checkpoint.

An image's line is written after its files are complete: workers stage the files, and the checkpoint moves them to
their final names.
"""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from walkcut.bulk import run_folder
from walkcut.bulk.formats.protocol import Format
from walkcut.bulk.items import CheckpointEntry, Item, ItemFailure, ItemResult
from walkcut.bulk.jsonl import HashSet64, append_line, external_sort, keys, temporary_dir, truncate_partial_line
from walkcut.bulk.run_folder import DONE, FAILED, STAGING, STATE


class Checkpoint:
    """Checkpoint of the run in a folder, for the one process that may write there; see `open_checkpoint`."""

    def __init__(self, output_dir: Path, done_file: IO[bytes], failed_file: IO[bytes]) -> None:
        self._output_dir, self._done_file, self._failed_file = output_dir, done_file, failed_file
        self._done, self._failed = HashSet64(keys(output_dir / DONE)), HashSet64(keys(output_dir / FAILED))

    @property
    def done(self) -> int:
        """Number of finished images."""
        return len(self._done)

    @property
    def failed(self) -> int:
        """Number of failed images."""
        return len(self._failed)

    def is_done(self, key: str) -> bool:
        """Return whether an image is finished or has failed."""
        return key in self._done or key in self._failed

    def has_failed(self, key: str) -> bool:
        """Return whether an image has failed."""
        return key in self._failed

    def save(self, result: ItemResult) -> None:
        """Move an image's files to their final names, then write its line."""
        for name, staged in result.files.items():
            _move(self._output_dir / STAGING / staged, self._output_dir / name)
        line = {
            **asdict(result.item),
            "tree_key": result.tree_key,
            "files": list(result.files),
            "record": result.record,
        }
        append_line(self._done_file, line)
        self._done.add(result.item.key)

    def fail(self, failure: ItemFailure) -> None:
        """Write the line of a failed image."""
        append_line(self._failed_file, asdict(failure))
        self._failed.add(failure.key)

    def assemble(self, output_format: Format) -> None:
        """Write the files that describe all finished images, in place of those assembled before."""
        state = self._output_dir / STATE
        with temporary_dir(state / "sorting") as sorting, temporary_dir(state / "assembling") as assembling:
            lines = external_sort(self._output_dir / DONE, sorting)
            output_format.assemble((json.loads(line)["record"] for line in lines), assembling)
            names = [
                path.relative_to(assembling).as_posix() for path in sorted(assembling.rglob("*")) if path.is_file()
            ]
            before = run_folder.assembled_files(self._output_dir)
            run_folder.save_assembled_files(self._output_dir, {*before, *names})
            run_folder.delete_files(self._output_dir, set(before) - set(names))
            for name in names:
                _move(assembling / name, self._output_dir / name)
        run_folder.save_assembled_files(self._output_dir, names)


@contextmanager
def open_checkpoint(
    output_dir: Path, run_settings: Mapping[str, Any], *, restart: bool = False, retry_failed: bool = False
) -> Iterator[Checkpoint]:
    """Open the checkpoint of the run with these settings (JSON), or start one in a new or empty folder.

    `restart` deletes the run that is there first; `retry_failed` forgets its failures. Raises `SettingsError` for a
    folder with a run of other settings, with other files, or in use by another process.
    """
    run_folder.require_run_or_empty(output_dir)
    (output_dir / STATE).mkdir(parents=True, exist_ok=True)
    failed_path = output_dir / FAILED
    with ExitStack() as stack:
        stack.enter_context(run_folder.locked(output_dir))
        if restart:
            run_folder.delete_run(output_dir)
        run_folder.check_run_settings(output_dir, run_settings)
        if retry_failed:
            failed_path.unlink(missing_ok=True)
        stack.callback(_delete_if_empty, failed_path)
        stack.enter_context(temporary_dir(output_dir / STAGING))
        done_file, failed_file = (
            stack.enter_context(truncate_partial_line(path).open("ab")) for path in (output_dir / DONE, failed_path)
        )
        yield Checkpoint(output_dir, done_file, failed_file)


def read_entries(output_dir: Path) -> Iterator[CheckpointEntry]:
    """Yield a run's finished images in the order of their keys. Raises `SettingsError` if the folder is in use."""
    run_folder.read_run_settings(output_dir)
    with run_folder.locked(output_dir), temporary_dir(output_dir / STATE / "sorting") as sorting:
        for line in external_sort(truncate_partial_line(output_dir / DONE), sorting):
            row = json.loads(line)
            item = Item(row["key"], row["reference"], row["data"], row["task_id"], row["control_index"])
            yield CheckpointEntry(item, row["tree_key"])


def _move(path: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)


def _delete_if_empty(path: Path) -> None:
    if not path.stat().st_size:
        path.unlink()
