import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from walkcut.bulk.items import Item, ItemFailure
from walkcut.bulk.sources import manifests
from walkcut.bulk.sources.scan import read_sources
from walkcut.errors import SettingsError

ROWS = [{"image": "a.jpg", "split": "x"}, {"image": "sub/b.jpg", "split": "y"}]


def items(*sources: object, **options: Any) -> list[Item]:
    return [item for item in read_sources([str(source) for source in sources], **options) if isinstance(item, Item)]


def failures(*sources: object) -> list[ItemFailure]:
    return [item for item in read_sources([str(source) for source in sources]) if isinstance(item, ItemFailure)]


def keys(*sources: object) -> list[str]:
    return [item.key for item in items(*sources)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "sub/deep/c.webp", "notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    return tmp_path / "in"


def test_a_folder_is_read_with_its_subfolders(folder: Path) -> None:
    assert keys(folder) == ["a", "b", "sub/deep/c"]
    first = items(folder)[0]
    assert (first.reference, first.data) == (str(folder / "a.png"), {"image": str(folder / "a.png")})


def test_keys_of_a_glob_start_at_its_first_wildcard(folder: Path) -> None:
    assert keys(folder / "**" / "*.webp") == ["sub/deep/c"]
    assert keys(folder / "sub" / "*" / "*.webp") == ["deep/c"]


def test_relative_paths_and_file_urls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert items("a.png", "*.png", (folder / "a.png").as_uri()) == items(folder / "a.png")


def test_a_repeated_reference_is_one_image_and_keys_are_unique(folder: Path) -> None:
    (folder / "sub" / "a.png").touch()
    first, second = keys(folder / "a.png", folder / "sub" / "a.png", folder / "a.png")
    assert first == "a"
    assert second.startswith("a-")
    assert keys(folder / "a.png", folder / "sub" / "a.png") == [first, second]


@pytest.mark.parametrize(
    ("name", "key"),
    [("ü b.jpg", "_b"), (".hidden.jpg", "hidden"), ("x" * 180 + ".jpg", "x" * 150), ('"q".jpg', "_q_")],
)
def test_keys_are_safe_names(tmp_path: Path, name: str, key: str) -> None:
    (tmp_path / name).touch()
    assert keys(tmp_path) == [key]


def as_csv(rows: list[dict[str, str]]) -> bytes:
    file = io.StringIO()
    writer = csv.DictWriter(file, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue().encode()


def as_parquet(rows: list[dict[str, str]]) -> bytes:
    file = io.BytesIO()
    write_table(pa.Table.from_pylist(rows), file)
    return file.getvalue()


WRITERS: dict[str, Callable[[list[dict[str, str]]], bytes]] = {
    ".json": lambda rows: json.dumps(rows, indent=1).encode(),
    ".jsonl": lambda rows: b"\n".join(json.dumps(row).encode() for row in rows) + b"\n\n",
    ".csv": as_csv,
    ".parquet": as_parquet,
}


@pytest.mark.parametrize("suffix", WRITERS)
@pytest.mark.parametrize("cloud", [False, True])
def test_references_of_a_manifest_are_relative_to_its_folder(tmp_path: Path, suffix: str, cloud: bool) -> None:
    folder = f"memory://lists{suffix}" if cloud else str(tmp_path)
    with fsspec.open(f"{folder}/all{suffix}", "wb") as file:
        file.write(WRITERS[suffix](ROWS))
    assert items(f"{folder}/all{suffix}") == [
        Item("a", f"{folder}/a.jpg", ROWS[0]),
        Item("sub/b", f"{folder}/sub/b.jpg", ROWS[1]),
    ]


def test_rows_may_be_strings_tasks_and_other_keys(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    rows = ["/x/1.jpg", {"data": {"url": "https://e.org/2.jpg?sig=3"}}, {"file_name": "3.jpg"}, "/data/upload/4.jpg"]
    path.write_text(json.dumps(rows))
    references = [item.reference for item in items(path)]
    assert references == ["/x/1.jpg", "https://e.org/2.jpg?sig=3", str(tmp_path / "3.jpg"), "/data/upload/4.jpg"]
    assert items(path)[1].data == {"url": rows[1]["data"]["url"], "image": rows[1]["data"]["url"]}  # type: ignore[index]
    path.write_text('[{"image": "a.jpg", "mask": "b.jpg"}]')
    assert [item.key for item in items(path, image_key="mask")] == ["b"]


def test_long_manifests_are_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_CHUNK_BYTES", 7)
    path = tmp_path / "all.json"
    path.write_text(json.dumps([f"{index}.jpg" for index in range(200)]))
    assert keys(path) == [str(index) for index in range(200)]


def test_rows_without_a_reference_fail_alone(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text('{"image": "a.jpg"}\n{"image": 7}\n{"imag\n3\n{"photo": "b.jpg"}\n"c.jpg"\n')
    assert keys(path) == ["a", "c"]
    reasons = [failure.reason for failure in failures(path)]
    expected = [
        "its image is a number: write a path or a URL",
        "the row is not valid JSON",
        "the row is a number: write a string or an object",
        "the row has no image or url or path or file_name: give",
    ]
    assert [reason.startswith(start) for reason, start in zip(reasons, expected, strict=True)] == [True] * 4
    assert failures(path)[0].key == "all.jsonl-row-2"


def test_malformed_rows_fail_alone(tmp_path: Path) -> None:
    path, deep = tmp_path / "all.jsonl", [f"{'[' * depth}{']' * depth}" for depth in (600, 10**5)]
    malformed = ['"http://["', '{"image": "gs://[/b.jpg"}', f'{{"image": "c.jpg", "x": {deep[0]}}}', *deep]
    path.write_text("\n".join(['"a.jpg"', *malformed, '"d.jpg"']))
    assert keys(path) == ["a", "d"]
    reasons = [failure.reason for failure in failures(path)]
    expected = [
        "'http://…' is not a valid URL (its host or its port is malformed)",
        "'gs://…' is not a valid URL",
        "lists and",
        "lists and",
        "the row is not valid JSON",
    ]
    assert [reason.startswith(start) for reason, start in zip(reasons, expected, strict=True)] == [True] * 5


@pytest.mark.parametrize("content", ["{}", '["a.jpg", ', "[1, }]", "", "[" * 10**5])
def test_a_damaged_manifest_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "all.json").write_text(content)
    with pytest.raises(SettingsError, match=r"all.json is not a valid manifest"):
        items(tmp_path / "all.json")


def test_prefixes_and_patterns_in_cloud_storage() -> None:
    for name in ("2/b.jpg", "a.png", "readme.md"):
        with fsspec.open(f"memory://bucket/{name}", "wb") as file:
            file.write(b"x")
    assert [(item.key, item.reference) for item in items("memory://bucket")] == [
        ("a", "memory://bucket/a.png"),
        ("2/b", "memory://bucket/2/b.jpg"),
    ]
    assert [item.reference for item in items("memory://bucket/*/*.jpg")] == ["memory:///bucket/2/b.jpg"]
    assert keys("memory://bucket/a.png") == ["a"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "'nowhere' does not exist: give a folder, an image, a manifest or a glob pattern"),
        ("*.jpg", r"\*.jpg holds no image"),
        ("memory://nowhere/x", "'memory://nowhere/x' does not exist: check the address"),
        ("nosuch://x", "a protocol that fsspec does not know|cannot be read here"),
        ("zip::memory://x", "chains file systems"),
        ("http://me:geheim@[", "'http://…@.*' is not a valid URL .its host or its port is malformed.: correct"),
    ],
)
def test_sources_that_cannot_be_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=message):
        items(source)


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "all.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SettingsError, match=r"Parquet cannot be read here: install walkcut\[bulk\]"):
        items(tmp_path / "all.parquet")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(SettingsError, match=r"'s3://b/x' cannot be read here .*install walkcut\[bulk\], and s3fs"):
        items("s3://b/x")


def test_images_below_label_studios_root_have_the_address_that_it_serves(folder: Path) -> None:
    (item,) = items(folder / "sub", local_files_root=folder, data_key="photo")
    assert item.data == {"photo": "/data/local-files/?d=sub/deep/c.webp"}
