"""Attacks on the folder of local files: paths that leave it, and names of things other than files."""

import os
from pathlib import Path
from urllib.parse import quote

import pytest

from walkcut.errors import ImageFetchError
from walkcut.images import FetchPolicy, LabelStudioAccess
from walkcut.images.fetch import Fetcher


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder of local files with a secret beside it."""
    folder = tmp_path / "root"
    (folder / "in" / "deep").mkdir(parents=True)
    (folder / "in" / "a.jpg").write_bytes(b"image")
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "root-too").mkdir()
    (tmp_path / "root-too" / "secret").write_bytes(b"secret")
    return folder


def refused(root: Path, query: str, message: str) -> None:
    fetcher = Fetcher(FetchPolicy(local_files_root=root, max_bytes=1000), LabelStudioAccess("http://ls/sub"))
    for reference in (
        f"/data/local-files/?{query}",
        f"/sub/data/local-files?{query}",
        f"http://ls/sub/data/local-files/?{query}",
    ):
        with pytest.raises(ImageFetchError, match=message) as caught:
            fetcher.fetch(reference)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "query",
    ["d=../secret", "d=%2e%2e/secret", "d=%2E%2E%2Fsecret", "d=in/../../secret", "d=in/deep/../../../secret",
     "d=./../secret", "d=..//secret", "d=../root-too/secret", "d=/etc/passwd", "d=//etc/passwd", "d=%2fetc%2fpasswd",
     "d=/../../etc/passwd", "d=in/a.jpg/../../../secret"],
)  # fmt: skip
def test_paths_that_lead_out(root: Path, query: str) -> None:
    refused(root, query, "lies outside|cannot be read")


@pytest.mark.parametrize(
    "query",
    ["d=..\\secret", "d=%252e%252e/secret", "d=..%c0%afsecret", "d=%ff%fe", "d=%00", "d=in/a.jpg%00.png", "d=",
     "d=in", "d=.", "d=%0a", "d=~/secret", "d=$HOME", "D=in/a.jpg", "d=" + "a/" * 3000, "d=" + "x" * 300,
     "&".join(["d=in/a.jpg"] * 20)],
)  # fmt: skip
def test_paths_of_no_file(root: Path, query: str) -> None:
    refused(root, query, "cannot be read|is not a file|the reference is not a valid URL")


@pytest.mark.parametrize("target", ["../secret", "../../secret", "/etc/passwd", "/dev/zero", "/proc/self/environ"])
def test_links_that_lead_out(root: Path, target: str) -> None:
    (root / "in" / "link").symlink_to(target)
    refused(root, "d=in/link", "lies outside|cannot be read")


def test_a_folder_that_is_a_link(root: Path) -> None:
    (root / "up").symlink_to(root.parent)
    refused(root, "d=up/secret", "lies outside")


def test_links_in_a_circle(root: Path) -> None:
    (root / "a").symlink_to(root / "b")
    (root / "b").symlink_to(root / "a")
    refused(root, "d=a", "cannot be read")


def test_a_pipe_that_would_block(root: Path) -> None:
    os.mkfifo(root / "pipe")
    refused(root, "d=pipe", "is not a file")


def test_a_file_that_is_larger_than_its_reported_size(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "large").write_bytes(bytes(1001))
    monkeypatch.setattr(Path, "stat", lambda *_args, **_more: os.stat_result((0o100644, 0, 0, 1, 0, 0, 0, 0, 0, 0)))
    refused(root, "d=large", "more than 1000 bytes")


@pytest.mark.parametrize(
    "reference", ["file:///etc/passwd", "/etc/passwd", "../secret", "in/a.jpg", "file://localhost/etc/passwd"]
)
def test_files_by_another_reference(root: Path, reference: str) -> None:
    with pytest.raises(ImageFetchError, match="does not support references of this kind"):
        Fetcher(FetchPolicy(local_files_root=root), None).fetch(reference)


def test_the_folders_own_files_are_read(root: Path) -> None:
    (root / "link").symlink_to(root / "in" / "a.jpg")
    fetcher = Fetcher(FetchPolicy(local_files_root=root), None)
    for name in ("in/a.jpg", "link", "in/deep/../a.jpg", quote(str(root.resolve() / "in" / "a.jpg"))):
        assert fetcher.fetch(f"/data/local-files/?d={name}") == b"image"
