import csv
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from pyarrow.parquet import write_table

from tests.builders.bulk import CONTROL
from walkcut.bulk.checkpoint import ItemFailure
from walkcut.bulk.items import Item
from walkcut.bulk.sources import manifests
from walkcut.bulk.sources.scan import project_items, read_sources
from walkcut.errors import SettingsError

ROWS = [{"image": "a.jpg", "split": "x"}, {"image": "sub/b.jpg", "split": "y"}]


def found(*names: object, **options: Any) -> list[Item]:
    return [item for item in read_sources([str(name) for name in names], **options) if isinstance(item, Item)]


def failures(*names: object) -> list[ItemFailure]:
    return [item for item in read_sources([str(name) for name in names]) if isinstance(item, ItemFailure)]


def keys(*names: object) -> list[str]:
    return [item.key for item in found(*names)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.JPG", "a.png", "sub/deep/c.webp", "notes.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    return tmp_path / "in"


def test_a_folder_is_read_with_its_folders(folder: Path) -> None:
    assert keys(folder) == ["a", "b", "sub/deep/c"]
    first = found(folder)[0]
    assert (first.reference, first.data) == (str(folder / "a.png"), {"image": str(folder / "a.png")})


def test_a_glob_names_images_from_its_first_wildcard_on(folder: Path) -> None:
    assert keys(folder / "**" / "*.webp") == ["sub/deep/c"]
    assert keys(folder / "sub" / "*" / "*.webp") == ["deep/c"]


def test_relative_names_and_file_urls(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert found("a.png", "*.png", (folder / "a.png").as_uri()) == found(folder / "a.png")


def test_the_same_reference_is_one_image_and_others_get_a_key_of_their_own(folder: Path) -> None:
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
def test_lists_are_read_relative_to_their_folder(tmp_path: Path, suffix: str, cloud: bool) -> None:
    folder = f"memory://lists{suffix}" if cloud else str(tmp_path)
    with fsspec.open(f"{folder}/all{suffix}", "wb") as file:
        file.write(WRITERS[suffix](ROWS))
    assert found(f"{folder}/all{suffix}") == [
        Item("a", f"{folder}/a.jpg", ROWS[0]),
        Item("sub/b", f"{folder}/sub/b.jpg", ROWS[1]),
    ]


def test_lists_may_be_of_texts_tasks_and_other_keys(tmp_path: Path) -> None:
    path = tmp_path / "all.json"
    rows = ["/x/1.jpg", {"data": {"url": "https://e.org/2.jpg?sig=3"}}, {"file_name": "3.jpg"}, "/data/upload/4.jpg"]
    path.write_text(json.dumps(rows))
    references = [item.reference for item in found(path)]
    assert references == ["/x/1.jpg", "https://e.org/2.jpg?sig=3", str(tmp_path / "3.jpg"), "/data/upload/4.jpg"]
    assert found(path)[1].data == {"url": rows[1]["data"]["url"], "image": rows[1]["data"]["url"]}  # type: ignore[index]
    path.write_text('[{"image": "a.jpg", "mask": "b.jpg"}]')
    assert [item.key for item in found(path, image_key="mask")] == ["b"]


def test_long_lists_are_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_CHUNK", 7)
    path = tmp_path / "all.json"
    path.write_text(json.dumps([f"{number}.jpg" for number in range(200)]))
    assert keys(path) == [str(number) for number in range(200)]


def test_rows_without_a_reference_fail_alone(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text('{"image": "a.jpg"}\n{"image": 7}\n{"imag\n3\n{"image": "b.jpg"}\n"c.jpg"\n')
    assert keys(path) == ["a", "c"]
    reasons = [failure.reason for failure in failures(path)]
    expected = ["its image is 7", "it is no JSON", "it is 3, neither", "it has none of image, url, path, file_name"]
    assert [reason.startswith(start) for reason, start in zip(reasons, expected, strict=True)] == [True] * 4
    assert failures(path)[0].key == "all.jsonl-row-2"


def test_rows_that_no_program_can_use_fail_alone(tmp_path: Path) -> None:
    path, deep = tmp_path / "all.jsonl", [f"{'[' * depth}{']' * depth}" for depth in (600, 10**5)]
    odd = ['"http://["', '{"image": "gs://[/b.jpg"}', f'{{"image": "c.jpg", "x": {deep[0]}}}', *deep]
    path.write_text("\n".join(['"a.jpg"', *odd, '"d.jpg"']))
    assert keys(path) == ["a", "d"]
    reasons = [failure.reason for failure in failures(path)]
    expected = [
        "'http://[' cannot be followed (Inv",
        "'gs://[/b.jpg' cannot",
        "lists and",
        "lists and",
        "it is no JSON",
    ]
    assert [reason.startswith(start) for reason, start in zip(reasons, expected, strict=True)] == [True] * 5


@pytest.mark.parametrize("content", ["{}", '["a.jpg", ', "[1, }]", "", "[" * 10**5])
def test_a_damaged_list_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "all.json").write_text(content)
    with pytest.raises(SettingsError, match=r"all.json is no list of references, or a damaged one"):
        found(tmp_path / "all.json")


def test_prefixes_and_patterns_of_a_cloud_storage() -> None:
    for name in ("2/b.jpg", "a.png", "readme.md"):
        with fsspec.open(f"memory://bucket/{name}", "wb") as file:
            file.write(b"x")
    assert [(item.key, item.reference) for item in found("memory://bucket")] == [
        ("a", "memory://bucket/a.png"),
        ("2/b", "memory://bucket/2/b.jpg"),
    ]
    assert [item.reference for item in found("memory://bucket/*/*.jpg")] == ["memory:///bucket/2/b.jpg"]
    assert keys("memory://bucket/a.png") == ["a"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere", "there is no nowhere: name a folder, an image, a list or a pattern"),
        ("*.jpg", r"there is no image in \*.jpg"),
        ("memory://nowhere/x", "there is nothing at 'memory://nowhere/x'"),
        ("nosuch://x", "of no kind that fsspec reads|cannot be read here"),
        ("zip::memory://x", "chains file systems"),
        ("http://me:geheim@[", "'http://\\[' cannot be followed \\(Invalid IPv6 URL\\): mend it"),
    ],
)
def test_sources_that_cannot_be_had_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingsError, match=message):
        found(name)


def test_what_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "all.parquet").touch()
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(SettingsError, match=r"Parquet list cannot be read here: install walkcut\[bulk\]"):
        found(tmp_path / "all.parquet")
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(SettingsError, match=r"'s3://b/x' cannot be read here .*install walkcut\[bulk\], and s3fs"):
        found("s3://b/x")


def test_images_below_label_studios_root_have_its_address(folder: Path) -> None:
    (item,) = found(folder / "sub", root=folder, data_key="photo")
    assert item.data == {"photo": "/data/local-files/?d=sub/deep/c.webp"}


def test_a_projects_tasks_without_these_versions() -> None:
    tasks: list[tuple[dict[str, Any], frozenset[str]]] = [
        ({"id": 1, "data": {"image": "/1.jpg"}}, frozenset({"v", "w"})),
        ({"id": 2, "data": {"image": "/2.jpg"}}, frozenset({"w"})),
        ({"id": 3, "data": {"text": "?"}}, frozenset()),
    ]
    item, failure = project_items(tasks, [CONTROL], ["v"])
    assert item == Item("task-2", "/2.jpg", {"image": "/2.jpg"}, 2)
    assert isinstance(failure, ItemFailure)
    assert "task 3 has no image" in failure.reason


def test_a_task_has_an_item_for_each_image_or_fails_as_a_whole() -> None:
    controls = [CONTROL, replace(CONTROL, data_key="back")]
    tasks: list[tuple[dict[str, Any], frozenset[str]]] = [
        ({"id": 2, "data": {"image": "/2.jpg", "back": "/3.jpg"}}, frozenset()),
        ({"id": 4, "data": {"image": "/4.jpg"}}, frozenset()),
    ]
    first, second, failure = project_items(tasks, controls, ["v"])
    assert first == Item("task-2-1", "/2.jpg", tasks[0][0]["data"], 2, 0)
    assert second == Item("task-2-2", "/3.jpg", tasks[0][0]["data"], 2, 1)
    assert isinstance(failure, ItemFailure)
    assert (failure.key, failure.reference) == ("task-4-1", "task 4")
