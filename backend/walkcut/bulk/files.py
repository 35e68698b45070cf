"""Files of a run's folder: written, moved and deleted."""

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def delete_files(output_dir: Path, names: Iterable[str]) -> None:
    """Delete files below a folder, and its subfolders that become empty."""
    for name in names:
        (output_dir / name).unlink(missing_ok=True)
        for folder in Path(name).parents[:-1]:
            with suppress(OSError):  # it is not empty
                (output_dir / folder).rmdir()


def delete_if_empty(path: Path) -> None:
    """Delete a file without content."""
    if not path.stat().st_size:
        path.unlink()


def write_or_link(path: Path, content: bytes | Path) -> None:
    """Write bytes, or make a link to a file; a copy where the file system has no links."""
    if isinstance(content, bytes):
        path.write_bytes(content)
        return
    try:
        path.symlink_to(content)
    except OSError:
        shutil.copyfile(content, path)


def move(path: Path, target: Path) -> None:
    """Move a file, and make the folder that it goes to."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path.replace(target)
