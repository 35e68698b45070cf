"""Descendants of a process (Linux)."""

from pathlib import Path


def descendants(pid: int) -> list[int]:
    """Return the ids of a process's children, their children, and so on."""
    try:
        listed = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    except (FileNotFoundError, ProcessLookupError):
        return []
    children = [int(child) for child in listed.split()]
    return [*children, *(descendant for child in children for descendant in descendants(child))]
