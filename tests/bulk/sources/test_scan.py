import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow.parquet import write_table

from tests.builders.bulk import write_image
from tests.builders.image_files import encode_image
from walkcut.bulk.items import Item, ItemFailure, Skipped
from walkcut.bulk.sources import manifests
from walkcut.bulk.sources.scan import Addresses, is_shown, read_sources
from walkcut.errors import SettingsError

ROWS = [{"image": "a.jpg", "split": "x"}, {"image": "sub/b.jpg", "split": "y"}]


def items(*sources: object, **options: Any) -> list[Item]:
    return [item for item in read_sources([str(source) for source in sources], **options) if isinstance(item, Item)]


def failures(*sources: object, **options: Any) -> list[ItemFailure]:
    return [item for item in read_sources([*map(str, sources)], **options) if isinstance(item, ItemFailure)]


def skipped(*sources: object) -> list[Skipped]:
    return [item for item in read_sources([*map(str, sources)]) if isinstance(item, Skipped)]


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
    [("ü b.jpg", "ü b"), (".hidden.jpg", ".hidden"), ("x" * 251 + ".jpg", "x" * 251), ('"q#1?.jpg', '"q#1?')],
)
def test_keys_are_the_files_own_names(tmp_path: Path, name: str, key: str) -> None:
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
        Item("a", f"{folder}/a.jpg", ROWS[0], name="a.jpg"),
        Item("sub/b", f"{folder}/sub/b.jpg", ROWS[1], name="sub/b.jpg"),
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


def test_folders_of_references_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lists").mkdir()
    rows = [str(tmp_path / "lists" / "cam1" / "a.jpg"), "../cam2/a.jpg", "/x/a%20b#c.jpg", "file:///y/d%20e.jpg"]
    rows += ["/data/local-files/?d=cam3/a.jpg", "http://h/show.php?img=f.png"]
    (tmp_path / "lists" / "all.json").write_text(json.dumps(rows))
    expected = ["cam1/a", "cam2/a", "a%20b#c", "d e", "cam3/a", "f"]
    assert keys(tmp_path / "lists" / "all.json") == expected
    monkeypatch.chdir(tmp_path / "lists")
    assert keys("all.json") == expected


def test_names_may_be_relative_to_another_folder(folder: Path) -> None:
    first, second = items(folder / "a.png", folder / "sub", path_root=str(folder.parent))
    assert (first.name, second.name, second.key) == ("in/a.png", "in/sub/deep/c.webp", "in/sub/deep/c")
    (failure,) = read_sources([str(folder / "a.png")], path_root=str(folder / "sub"))
    assert isinstance(failure, ItemFailure)
    assert (failure.reference, failure.stage) == (str(folder / "a.png"), "source")


@pytest.mark.parametrize(
    ("row", "key"),
    [
        ({"data": {"image": {"url": "pics/a.png"}}}, "image.url"),
        ({"image": {"url": "pics/a.png"}}, "image.url"),
        ({"image.url": "pics/a.png"}, "image.url"),
        ({"img": [{"u": "pics/a.png"}], "id": 1}, "img[0].u"),
    ],
)
def test_references_may_be_nested(tmp_path: Path, row: dict[str, Any], key: str) -> None:
    (tmp_path / "list.json").write_text(json.dumps([row]))
    (item,) = items(tmp_path / "list.json", image_key=key, addresses=Addresses(key))
    assert (item.reference, item.data) == (str(tmp_path / "pics/a.png"), row.get("data", row))


@pytest.mark.parametrize(
    ("path", "data"),
    [("photo", {"photo": "S"}), ("image.url", {"image": {"url": "S"}}), ("img[0]", {"img": ["S"]})],
)
def test_task_data_have_the_image_where_the_labelling_config_reads_it(
    folder: Path, path: str, data: dict[str, Any]
) -> None:
    (item, *_) = items(folder, addresses=Addresses(path))
    assert item.data == json.loads(json.dumps(data).replace("S", item.reference))
    (item, *_) = items(folder, addresses=Addresses(path, folder.parent))
    assert str(item.data).count("/data/local-files/?d=") == 1


def test_long_manifests_are_read_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_CHUNK", 7)
    path = tmp_path / "all.json"
    path.write_text(json.dumps([f"{index}.jpg" for index in range(200)]))
    assert keys(path) == [str(index) for index in range(200)]


def test_rows_without_a_reference_fail_alone(tmp_path: Path) -> None:
    path = tmp_path / "all.jsonl"
    path.write_text('{"image": "a.jpg"}\n{"image": 7}\n{"image": " "}\n{"imag\n3\n{"photo": "b.jpg"}\n"c.jpg"\n')
    assert keys(path) == ["a", "c"]
    reasons = [failure.reason for failure in failures(path)]
    expected = [
        "its image is a number: write a path or a URL",
        "its image is empty: write a path or a URL",
        "the row is not valid JSON",
        "the row is a number: write a string or an object",
        "the row has no image or url or path or file_name: give",
    ]
    assert [reason.startswith(start) for reason, start in zip(reasons, expected, strict=True)] == [True] * 5
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
    (item,) = items("memory://bucket/*/*.jpg")
    assert (item.key, item.reference) == ("2/b", "memory:///bucket/2/b.jpg")
    assert keys("memory://bucket/a.png") == ["a"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "'nowhere' does not exist: give a folder, an image, a manifest or a glob pattern"),
        ("*.jpg", r"\*.jpg holds no image"),
        ("memory://nowhere/x", "'memory://nowhere/x' does not exist: check the address"),
        ("nosuch://x", "a protocol that fsspec does not know|cannot be read here"),
        ("zip::memory://x", "chains file systems"),
        ("", "a source is empty"),
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
    (item,) = items(folder / "sub", addresses=Addresses("photo", folder))
    assert item.data == {"photo": "/data/local-files/?d=sub/deep/c.webp"}


def test_files_of_a_folder_are_told_by_content(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 20))
    contents = {
        "a.jfif": encode_image(image, "JPEG"),
        "b": encode_image(image, "PNG"),
        "c.dat": encode_image(image, "AVIF"),
        "d.JPEG_large": encode_image(image, "JPEG"),
        "damaged.jpg": b"no image",
        "e.HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "f.jp2": b"\0\0\0\x0cjP  \r\n\x87\n",
        "g.nef": encode_image(image, "TIFF"),
        "h.svg": b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>',
        "sub/notes.txt": b"BMW, P5 and RIFF are no images",
        "sub/._b.png": b"\0\5\x16\7metadata",
        "sub/sound.wav": b"RIFF\x10\0\0\0WAVEfmt ",
        "sub/.gitkeep": b"",
        "sub/weights.bin": b"version https://git-lfs.github.com/spec/v1",
    }
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert [Path(item.reference).name for item in items(tmp_path)] == [
        "a.jfif",
        "b",
        "c.dat",
        "d.JPEG_large",
        "damaged.jpg",
    ]
    assert {Path(skip.reference).name: skip.reason for skip in skipped(tmp_path)} == {
        "e.HEIC": "HEIC: convert it to JPEG or PNG",
        "f.jp2": "JPEG 2000: convert it to JPEG or PNG",
        "g.nef": "raw photo: convert it to JPEG or PNG",
        "h.svg": "SVG: convert it to JPEG or PNG",
        **dict.fromkeys(("notes.txt", "._b.png", "sound.wav", ".gitkeep", "weights.bin"), "no image"),
    }
    assert len(items(tmp_path / "*")) == 5
    (folder_of_sub,) = [skip for skip in skipped(tmp_path / "*") if Path(skip.reference).name == "sub"]
    assert folder_of_sub.reason.startswith("folder that matches a pattern")


def test_a_folder_without_images_tells_what_it_holds(tmp_path: Path) -> None:
    for name in ("a.heic", "b.heic"):
        (tmp_path / name).write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / "c.txt").touch()
    with pytest.raises(SettingsError, match=r"holds no image that can be read \(2 skipped: HEIC: .*; 1 skipped: no im"):
        items(tmp_path)


def test_links_pipes_and_folders_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Links are followed once, pipes are not opened, and a folder that cannot be listed is a failure."""
    write_image(tmp_path / "in" / "a.png")
    write_image(tmp_path / "elsewhere" / "b.png")
    (tmp_path / "in" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "in" / "pipe.jpg")
    (tmp_path / "in" / "private").mkdir()
    scandir = os.scandir

    def guarded(path: str) -> Any:
        if str(path).endswith("private"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert keys(tmp_path / "in") == ["a", "linked/b"]
    assert [(Path(skip.reference).name, skip.reason) for skip in skipped(tmp_path / "in")] == [
        ("gone.png", "cannot be read (No such file or directory)"),
        ("pipe.jpg", "neither a file nor a folder"),
        ("back", "a link to a folder that holds it"),
    ]
    (failure,) = failures(tmp_path / "in")
    assert "cannot be listed (Permission denied)" in failure.reason


def test_output_of_a_run_within_the_source_is_no_source(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "labels" / "a.png")
    (tmp_path / "labels" / ".walkcut").mkdir()
    (tmp_path / "labels" / ".walkcut" / "run.json").touch()
    assert keys(tmp_path) == ["a"]
    assert [skip.reason for skip in skipped(tmp_path)] == ["output of `walkcut prelabel`"]


def test_repeated_images_are_named(tmp_path: Path) -> None:
    path = write_image(tmp_path / "a.png")
    assert [(skip.reference, skip.reason) for skip in skipped(path, tmp_path)] == [(str(path), "listed before")]


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png")).write_bytes(b"x")
    (item,) = items(tmp_path, addresses=Addresses("image", tmp_path))
    assert item.data == {"image": "/data/local-files/?d=caf%E9.png"}


# Lists

TABLE = [{"image": "a.png", "split": "train"}, {"image": "b c.png", "split": "val"}]
JSON_LINES = "\n".join(map(json.dumps, TABLE))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".txt", ".lst", "", ".list"])
@pytest.mark.parametrize(
    "text",
    [
        "image,split\na.png,train\nb c.png,val\n",
        "image;split\r\na.png;train\r\n\r\nb c.png;val",
        "\ufeffimage\tsplit\na.png\ttrain\nb c.png\tval\n",
        "image|split\na.png|train\nb c.png|val\n",
        'sep=;\r\n"image";"split"\r\n"a.png";"train"\r\n"b c.png";"val"\r\n',
        "image, split \n a.png , train\n b c.png\t, val\n",
        "\n split , Image \n train,  a.png\u00a0\nval,b c.png\u200b \n",
        json.dumps(TABLE),
        json.dumps(TABLE, indent=2),
        JSON_LINES,
        JSON_LINES.replace("\n", "\r\n\r\n"),
        json.dumps({"info": {}, "images": TABLE, "annotations": [{"id": 1}] * 9}, indent=1),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_lists_are_told_by_content(tmp_path: Path, suffix: str, text: str, encoding: str) -> None:
    (tmp_path / f"list{suffix}").write_bytes((text if encoding == "utf-8" else text.lstrip("\ufeff")).encode(encoding))
    found = items(tmp_path / f"list{suffix}")
    assert [item.reference for item in found] == [str(tmp_path / "a.png"), str(tmp_path / "b c.png")]
    assert [item.data["image"].strip() for item in found] == ["a.png", "b c.png"] or "Image" in text
    assert [item.data["split"] for item in found] == ["train", "val"]


@pytest.mark.parametrize("name", ["train.txt", "train", "train.lst", "train.csv", "train.tsv"])
@pytest.mark.parametrize(
    "text", ["a.png\nsub/b c.png\n", "\n./a.png\r\n sub/b c.png \r\n\r\n", '"a.png"\n"sub/b c.png"\n']
)
def test_lines_are_references(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert keys(tmp_path / name) == ["a", "sub/b c"]


@pytest.mark.parametrize(
    ("row", "image_key"),
    [
        ({"image": {"url": "a.png"}}, ""),
        ({"data": {"image": {"url": "a.png"}}}, ""),
        ({"data": {"image": ["a.png"]}}, ""),
        ({"image": {"url": "a.png"}}, "image.url"),
        ({"data": {"photo": [{"src": "x.png"}, {"src": "a.png"}]}}, "photo[1].src"),
        ({"data": {"photo": [{"src": "a.png"}]}}, "data.photo[0].src"),
        ({"Photo File": "a.png", "image": "b.png"}, "photo_file"),
        ({"photo.file": "a.png", "image": "b.png"}, "photo.file"),
        ({"FileName": " a.png\t"}, ""),
    ],
)
def test_fields_are_found_where_they_are_nested(tmp_path: Path, row: dict[str, object], image_key: str) -> None:
    (tmp_path / "list.json").write_text(json.dumps([row]))
    (item,) = items(tmp_path / "list.json", image_key=image_key)
    assert item.reference == str(tmp_path / "a.png")
    assert isinstance(item.data["image"], str)


def test_the_field_of_the_labelling_config_comes_first(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("url,photo\nx.png,a.png\n")
    (item,) = items(tmp_path / "list.csv", addresses=Addresses("photo"))
    assert (item.key, item.data) == ("a", {"url": "x.png", "photo": "a.png"})


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", "a.png;train\nb.png;val\n", r"no column image or url.*first line is 'a.png;train': name the image's"),
        ("l.csv", "photo,split\na.png,train\n", "no column image or url .* or with --image-key"),
        *((name, text, f"{name} lists no image") for name in ("l.csv", "l.txt") for text in ("", " \n\n", "image,x\n")),
        ("l.json", "[]", "l.json lists no image"),
        ("l.json", '["a.png"] ["b.png"', "not a valid manifest"),
        ("l.json", '["a.png"] and more', "not a valid manifest"),
        ("l.csv", 'image,split\n"a.png,train\nb.png,val\n', "unexpected end of data: check its quotes"),
        ("l.csv", 'image,split\n"a.png,train\n"b.png,val\n', "expected after .*: check its quotes"),
        ("l.csv", "image,image\na.png,b.png\n", "several columns 'image': rename all but one"),
        ("l.txt", "a.png\n".encode("utf-16-le"), "NUL characters: save it as UTF-8"),
        ("l.txt", "a.png\n".encode("utf-32"), "NUL characters: save it as UTF-8"),
        ("l.json", '{"classes": ["a"]}', "the row has no image or url"),
        ("l.xlsx", "PK\3\4", "is a spreadsheet, which is not read: save it as CSV"),
        ("l.csv", b"image\ncaf\xe9.png\n", "can't decode byte 0xe9.*: save it as UTF-8"),
    ],
)
def test_lists_that_cannot_be_read_are_named(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError, match=message):
        items(tmp_path / name)


def test_all_of_several_arrays_are_read(tmp_path: Path) -> None:
    for name in ("l.json", "l.jsonl"):
        (tmp_path / name).write_text('["a.png"]\n["b.png", {"image": "c.png"}]\n')
        assert keys(tmp_path / name) == ["a", "b", "c"]


def test_task_data_are_valid_json(tmp_path: Path) -> None:
    """Label Studio refuses NaN, which pandas writes for missing numbers."""
    write_table(pa.table({"image": ["a.png"], "x": [float("nan")]}), tmp_path / "l.parquet")
    (tmp_path / "l.json").write_text('[{"image": "a.png", "x": NaN}]')
    (tmp_path / "l.jsonl").write_text('{"image": "a.png", "x": -Infinity}\n')
    for name in ("l.parquet", "l.json", "l.jsonl"):
        assert items(tmp_path / name)[0].data["x"] is None


def test_a_missing_key_is_refused_in_tables(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_text("a.png\n")
    with pytest.raises(SettingsError, match="no column photo"):
        items(tmp_path / "l.txt", image_key="photo")


@pytest.mark.parametrize("name", ["all.csv", "all.json", "all.txt", "all.jsonl", "all.tsv"])
def test_lists_in_lists_are_refused(tmp_path: Path, name: str) -> None:
    """A list that names itself ends too."""
    listed = [name, f"./{name}", str(tmp_path / name), "other.parquet", "a.png"]
    path = tmp_path / name
    path.write_text(
        json.dumps(listed) if "json" in name and name != "all.jsonl" else "\n".join(map(json.dumps, listed))
    )
    assert keys(path) == ["a"]
    assert [re.sub(r".*/", "", failure.reason)[:40] for failure in failures(path)] != []
    assert all(
        "lists in lists are not read: give that list as a source" in failure.reason for failure in failures(path)
    )
    assert len(failures(path)) == 4


def test_cells_with_a_delimiter_need_quotes(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_text('image,split\na,b.png,val\n"c,d.png",val\ne.png\n')
    assert [item.reference for item in items(tmp_path / "l.csv")] == [
        str(tmp_path / "c,d.png"),
        str(tmp_path / "e.png"),
    ]
    (failure,) = failures(tmp_path / "l.csv")
    assert failure.reason == "the row has 3 cells, the header 2: put cells with a ',' in quotes"


def test_large_documents_are_read_in_growing_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(manifests, "_CHUNK", 64)
    path = tmp_path / "coco.json"
    images = [{"id": index, "file_name": f"{index}.jpg"} for index in range(2000)]
    path.write_text(json.dumps({"annotations": [{"id": 1}] * 1000, "images": images}))
    assert len(keys(path)) == 2000


@given(
    st.lists(
        st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\\"), min_size=1, max_size=12)
        .map(str.strip)
        .filter(lambda name: name.strip(". ?#:\ufeff\u200b[")),
        min_size=1,
        max_size=5,
        unique=True,
    ),
    st.sampled_from([",", ";", "\t", "|"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_names_in_a_table_are_found(names: list[str], delimiter: str, end: str) -> None:
    with TemporaryDirectory() as folder:
        stream = io.StringIO()
        writer = csv.writer(stream, delimiter=delimiter, lineterminator=end)
        writer.writerows([["split", "image"], *(["x", f"d/{name}.png"] for name in names)])
        (Path(folder) / "list.csv").write_text(stream.getvalue(), newline="")
        assert [item.reference for item in items(f"{folder}/list.csv")] == [f"{folder}/d/{name}.png" for name in names]


# Addresses


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        (Addresses(), ["{}/in/a.png", "{}/in/ü b/#1?.png"]),
        (Addresses(url_prefix="https://e.org/x/"), ["https://e.org/x/a.png", "https://e.org/x/%C3%BC%20b/%231%3F.png"]),
    ],
)
def test_addresses_of_a_folder(tmp_path: Path, addresses: Addresses, expected: list[str]) -> None:
    write_image(tmp_path / "in" / "a.png")
    write_image(tmp_path / "in" / "ü b" / "#1?.png")
    found = items(tmp_path / "in", addresses=addresses)
    assert [item.data["image"] for item in found] == [address.format(tmp_path) for address in expected]
    assert [is_shown(item.data["image"]) for item in found] == [bool(addresses.url_prefix)] * 2


def test_addresses_of_a_list(tmp_path: Path) -> None:
    path = tmp_path / "lists" / "all.json"
    path.parent.mkdir()
    path.write_text(json.dumps(["a.png", "../b.png", str(tmp_path / "lists" / "c.png"), "https://h/d.png"]))
    found = items(path, addresses=Addresses(url_prefix="https://e.org"))
    assert [item.data["image"] for item in found] == ["https://e.org/a.png", "https://e.org/c.png", "https://h/d.png"]
    (failure,) = failures(path, addresses=Addresses(url_prefix="https://e.org"))
    assert "b.png is not in the folder of the list, so it is not below https://e.org" in failure.reason
    found = items(path, addresses=Addresses("image", tmp_path))
    assert found[1].data["image"] == "/data/local-files/?d=b.png"


def test_two_images_never_have_one_address(tmp_path: Path) -> None:
    for folder in ("x", "y"):
        write_image(tmp_path / folder / "a.png")
    with pytest.raises(SettingsError, match=r"same address below https://e.org as another image: give the folder that"):
        items(tmp_path / "x", tmp_path / "y", addresses=Addresses(url_prefix="https://e.org"))
