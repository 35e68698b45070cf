import base64
from pathlib import Path

import pytest

from walkcut.errors import ImageFetchError
from walkcut.images import FetchPolicy, LabelStudioAccess
from walkcut.images.references import label_studio_path, read_data_url, read_local_file, web_address

ROOT_SITE = LabelStudioAccess("http://ls:8080", "secret", aliases=("http://localhost:8080",))
SUB_SITE = LabelStudioAccess("https://host/label-studio/", aliases=("http://inside/ls",))
CLOUD = base64.urlsafe_b64encode(b"s3://b/a b?.jpg").decode()


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("data:image/png;base64,aGVsbG8=", b"hello"),
        ("data:;base64,aGVsbG8", b"hello"),
        ("DATA:image/png;BASE64,aGVs%0AbG8%3D", b"hello"),
        ("data:,a%20b%FF", b"a b\xff"),
        ("data:text/plain;charset=utf-8,ä", "ä".encode()),
        ("http://host/data:,x", None),
    ],
)
def test_data_urls(reference: str, expected: bytes | None) -> None:
    assert read_data_url(reference, FetchPolicy()) == expected


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("data:image/png;base64", "comma"),
        ("data:;base64,a*b=", "base64 is broken"),
        ("data:;base64,a", "base64 is broken"),
        ("data:,12345678901", "more than 10 bytes.*WALKCUT_MAX_BYTES"),
    ],
)
def test_broken_data_urls(reference: str, message: str) -> None:
    with pytest.raises(ImageFetchError, match=message):
        read_data_url(reference, FetchPolicy(max_bytes=10))


@pytest.mark.parametrize(
    ("reference", "access", "expected"),
    [
        ("/data/upload/1/a.jpg", ROOT_SITE, "/data/upload/1/a.jpg"),
        ("/data/upload/1/a.jpg", None, "/data/upload/1/a.jpg"),
        ("/data/upload/1/a.jpg", SUB_SITE, "/data/upload/1/a.jpg"),
        ("/label-studio/data/upload/1/a.jpg", SUB_SITE, "/data/upload/1/a.jpg"),
        ("/label-studio/data/upload/1/a.jpg", ROOT_SITE, "/data/upload/1/a.jpg"),  # of a proxy that removes it
        ("/label-studio/data/upload/1/a.jpg", None, "/data/upload/1/a.jpg"),
        ("/tools/ls/data/local-files/?d=a/b.jpg", SUB_SITE, "/data/local-files/?d=a/b.jpg"),
        ("//data/upload/1/a.jpg", ROOT_SITE, "/data/upload/1/a.jpg"),
        ("///data/local-files?d=a.jpg", None, "/data/local-files?d=a.jpg"),
        ("/label-studio//data/upload/1/a.jpg", SUB_SITE, "/data/upload/1/a.jpg"),
        ("/tasks/5/presign/?fileuri=czM6Ly9i", ROOT_SITE, "/tasks/5/presign/?fileuri=czM6Ly9i"),
        ("/label-studio/tasks/5/resolve/?fileuri=a", SUB_SITE, "/tasks/5/resolve/?fileuri=a"),
        ("/projects/3/presign/?fileuri=a", None, "/projects/3/presign/?fileuri=a"),
        ("http://ls:8080//data/upload/1/a.jpg", ROOT_SITE, "/data/upload/1/a.jpg"),
        ("http://ls:8080/label-studio/data/upload/1/a.jpg", ROOT_SITE, "/data/upload/1/a.jpg"),
        ("https://host/label-studio//data/upload/1/a.jpg", SUB_SITE, "/data/upload/1/a.jpg"),
        ("https://host/data/upload/1/a.jpg", SUB_SITE, None),
        ("https://host/label-studio/tasks/5/presign/?fileuri=a", SUB_SITE, "/tasks/5/presign/?fileuri=a"),
        ("/data/upload/", ROOT_SITE, None),
        ("/tasks/5", ROOT_SITE, None),
        ("/tasks/x/presign/?fileuri=a", ROOT_SITE, None),
        ("/mnt/data/uploads/1/a.jpg", ROOT_SITE, None),
        ("/ls/data/local-files/?d=a/b.jpg", SUB_SITE, "/data/local-files/?d=a/b.jpg"),
        ("/data/local-files?d=b.jpg", ROOT_SITE, "/data/local-files?d=b.jpg"),
        ("/storage-data/uploaded/?filepath=u/a.jpg", ROOT_SITE, "/storage-data/uploaded/?filepath=u/a.jpg"),
        ("http://ls:8080/static/a.jpg", ROOT_SITE, "/static/a.jpg"),
        ("http://localhost:8080/data/local-files/?d=b.jpg", ROOT_SITE, "/data/local-files/?d=b.jpg"),
        ("http://localhost:8081/data/local-files/?d=b.jpg", ROOT_SITE, None),
        ("https://host/label-studio/data/upload/1/a.jpg", SUB_SITE, "/data/upload/1/a.jpg"),
        ("https://host/label-studio-2/a.jpg", SUB_SITE, None),
        ("https://ls:8080/data/upload/1/a.jpg", ROOT_SITE, None),
        ("//ls:8080/data/upload/1/a.jpg", ROOT_SITE, None),
        ("/api/users", ROOT_SITE, None),
        ("s3://b/data/upload/1/a.jpg", ROOT_SITE, None),
    ],
)
def test_label_studio_path(reference: str, access: LabelStudioAccess | None, expected: str | None) -> None:
    assert label_studio_path(reference, access) == expected


@pytest.mark.parametrize(
    ("reference", "path", "access", "expected"),
    [
        ("/data/upload/1/a.jpg", "/data/upload/1/a.jpg", ROOT_SITE, "http://ls:8080/data/upload/1/a.jpg"),
        ("-", "/data/upload/1/a.jpg", SUB_SITE, "https://host/label-studio/data/upload/1/a.jpg"),
        ("s3://b/a b?.jpg", None, ROOT_SITE, f"http://ls:8080/tasks/7/presign/?fileuri={CLOUD}"),
        ("http://other/a.jpg", None, None, "http://other/a.jpg"),
    ],
)
def test_web_address(reference: str, path: str | None, access: LabelStudioAccess | None, expected: str) -> None:
    assert web_address(reference, path, 7, access) == expected


@pytest.mark.parametrize(
    "reference",
    ["", " ", "a.jpg", "../a.jpg", "/etc/passwd", "file:///etc/passwd", "ftp://h/a.jpg", "s3s://b/a", "C:\\a"],
)
def test_other_references_are_refused(reference: str) -> None:
    with pytest.raises(
        ImageFetchError, match=r"does not support references of this kind. Accepted are http.*data:.*s3://"
    ):
        web_address(reference, label_studio_path(reference, ROOT_SITE), 7, ROOT_SITE)


def test_label_studios_files_need_its_address_and_the_task() -> None:
    with pytest.raises(ImageFetchError, match="LABEL_STUDIO_URL"):
        web_address("gs://b/a.jpg", None, 7, None)
    with pytest.raises(ImageFetchError, match="task's id"):
        web_address("azure-blob://b/a.jpg", None, None, ROOT_SITE)


@pytest.fixture
def local_files(tmp_path: Path) -> FetchPolicy:
    """A folder of local files with links that lead out of it, in circles and within it."""
    root = tmp_path / "root"
    (root / "my set").mkdir(parents=True)
    (root / "my set" / "ä +.jpg").write_bytes(b"image")
    (root / "large.jpg").write_bytes(b"x" * 101)
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    (root / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (root / "up").symlink_to(tmp_path)
    (root / "circle.jpg").symlink_to(root / "circle.jpg")
    (root / "within.jpg").symlink_to(root / "my set" / "ä +.jpg")
    return FetchPolicy(local_files_root=root, max_bytes=100)


@pytest.mark.parametrize("name", ["my%20set/%C3%A4%20%2B.jpg", "my set/ä+%2B.jpg", "my set/../within.jpg"])
def test_local_files(local_files: FetchPolicy, name: str) -> None:
    assert read_local_file(f"/data/local-files/?d={name}", local_files) == b"image"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../secret.jpg", "outside"),
        ("%2e%2e/secret.jpg", "outside"),
        ("/etc/hostname", "outside"),
        ("out.jpg", "outside"),
        ("up/secret.jpg", "outside"),
        ("circle.jpg", "cannot be read"),
        ("missing.jpg", "cannot be read.*WALKCUT_LOCAL_FILES_ROOT"),
        ("a%00b", "cannot be read"),
        ("", "is not a file"),
        ("my set", "is not a file"),
        ("large.jpg", "more than 100 bytes"),
    ],
)
def test_local_files_stay_below_the_root(local_files: FetchPolicy, name: str, message: str) -> None:
    with pytest.raises(ImageFetchError, match=message):
        read_local_file(f"/data/local-files/?d={name}", local_files)


def test_without_a_root_no_file_is_read(local_files: FetchPolicy) -> None:
    assert read_local_file("/data/local-files/?d=within.jpg", FetchPolicy()) is None
    assert read_local_file("/data/upload/?d=within.jpg", local_files) is None
    assert read_local_file(None, local_files) is None
