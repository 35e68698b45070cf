import os
import tempfile
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walkcut.bulk.items import Item, ItemFailure
from walkcut.bulk.names import ImageNames, reference_name, split_suffix
from walkcut.images.decode import IMAGE_SUFFIXES

SURROGATE = os.fsdecode(b"caf\xe9")
parts = st.text(min_size=1, max_size=300) | st.sampled_from([".", "..", "images", "labels", "a.png", ".walkcut"])
paths = st.builds(
    lambda folders, stem, suffix: "/".join([*folders, stem + suffix]),
    st.lists(parts, max_size=3),
    parts,
    st.sampled_from([*sorted(IMAGE_SUFFIXES), ".JPG", ".jfif", ""]),
)


def assign(names: ImageNames, name: str, reference: str = "") -> Item:
    item = names.assign(Item("", reference or f"/in/{name}"), name)
    assert isinstance(item, Item)
    return item


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("my photo (1).jpg", "my photo (1)"),
        ("图片一.jpg", "图片一"),
        ("Café.png", "Café"),
        (".hidden.png", ".hidden"),
        ("a.b.c.JPEG", "a.b.c"),
        ("photo.jpg.jpg", "photo.jpg"),
        ("...jpg", ".."),
        ('"q" & <r>\\s.png', '"q" & <r>\\s'),
        ("-rf.webp", "-rf"),
        ("two\nlines.png", "two\nlines"),
        (f"{SURROGATE}.png", SURROGATE),
        ("x" * 251 + ".png", "x" * 251),
        ("x" * 250 + ".jpeg", "x" * 250),
        ("scan.2024", "scan.2024"),
        ("phone.HEIC", "phone"),
        ("cam 1/夏/f1.png", "cam 1/夏/f1"),
        ("../up/./f1.png", "up/f1"),
        ("a\0b.png", "a_b"),
        ("lone\ud800.png", "lone_"),
        ("é" * 200 + ".png", "é" * 125),
        ("", "image"),
    ],
)
def test_the_key_is_the_images_own_name_without_suffix(name: str, key: str) -> None:
    assert assign(ImageNames(), name).key == key


def test_names_that_are_taken_get_a_digest() -> None:
    names = ImageNames()
    first, second = assign(names, "a.jpg"), assign(names, "a.png")
    other = assign(names, "a.jpg", "/other/a.jpg")
    assert (first.key, first.name, second.name) == ("a", "a.jpg", "a.png")
    assert second.key.startswith("a-")
    assert other.name == f"{other.key}.jpg"
    assert len({first.key, second.key, other.key}) == 3
    assert assign(names, second.key + ".png").key != second.key


def test_folders_named_as_output_files_are_renamed() -> None:
    names = ImageNames()
    image = assign(names, "scan.tif/1.png")
    assert (image.key, image.name) == ("scan.tif_/1", "scan.tif/1.png")
    assert assign(names, "scan.xml/1.png").key == "scan.xml_/1"
    assert assign(names, ".walkcut/parts/1.png").key == ".walkcut_/parts/1"


@given(st.lists(paths, max_size=6))
def test_keys_are_unique_paths_that_can_be_written(names: list[str]) -> None:
    taken = ImageNames()
    items = [assign(taken, name, f"/{index}") for index, name in enumerate(names)]
    assert len({item.key for item in items}) == len({item.name for item in items}) == len(items)
    with tempfile.TemporaryDirectory() as folder:
        for item in items:
            for file in (f"{item.key}.png", f"{item.key}.txt"):
                path = Path(folder) / file
                assert path.resolve().is_relative_to(Path(folder).resolve())
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch(exist_ok=False)


@given(st.lists(paths, max_size=4))
def test_names_are_the_same_in_every_run(names: list[str]) -> None:
    first, second = ImageNames(), ImageNames()
    assert [assign(first, name) for name in names] == [assign(second, name) for name in names]


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("/data/local-files/?d=cam1/f1.png", "cam1/f1.png"),
        ("/labelstudio/data/local-files/?d=cam%201/%E5%9B%BE.png", "cam 1/图.png"),
        ("/data/upload/3/1a2b3c4d-my%20photo.jpg", "1a2b3c4d-my photo.jpg"),
        ("http://h/show.php?img=a.png", "a.png"),
        ("http://h/show.php?size=9&img=%2Fall%2Fa%20b.png", "a b.png"),
        ("http://h/proxy?url=https%3A%2F%2Fe.org%2Fx%2Fa.png%3Fsig%3D1", "a.png"),
        ("http://h/a.png?token=b.jpg", "a.png"),
        ("http://h/a.png#page=2", "a.png"),
        ("https://h/Caf%C3%A9.png", "Café.png"),
        ("/tasks/5/presign/?fileuri=czM6Ly9iL3gveS5qcGc=", "y.jpg"),
        ("/tasks/5/presign/?fileuri=%%%", "presign"),
        ("http://h/image?id=5", "image"),
        ("http://h/", ""),
        ("http://h/x?" + "&".join(f"f{n}=a.png" for n in range(99)), "x"),
        ("data:image/png;base64,AAAA", ""),
    ],
)
def test_the_name_of_a_reference(reference: str, name: str) -> None:
    assert reference_name(reference) == name


@given(st.text(max_size=30).map(lambda text: f"http://h/{text}"))
def test_any_url_has_a_name(reference: str) -> None:
    try:
        name = reference_name(reference)
    except ValueError:  # not a URL
        return
    assert assign(ImageNames(), name, reference).key


@pytest.mark.parametrize(
    ("root", "reference", "name"),
    [
        ("/data", "/data/cam1/f1.png", "cam1/f1.png"),
        ("/data/", "/data/cam1/f#1%20?.png", "cam1/f#1%20?.png"),
        ("/", "/data/f1.png", "data/f1.png"),
        ("s3://bucket/set", "s3://bucket/set/cam1/f1.png", "cam1/f1.png"),
        ("https://h/set/", "https://h/set/cam%201/f1.png?sig=1", "cam 1/f1.png"),
    ],
)
def test_names_are_relative_to_a_root(root: str, reference: str, name: str) -> None:
    image = assign(ImageNames(root), "f1.png", reference)
    assert (image.name, image.key) == (name, name.removesuffix(".png"))


@pytest.mark.parametrize("reference", ["/database/f1.png", "https://h/f1.png", "data:image/png;base64,AAAA"])
def test_an_image_that_is_not_below_the_root_fails(reference: str) -> None:
    failure = ImageNames("/data").assign(Item("", reference), "f1.png")
    assert isinstance(failure, ItemFailure)
    assert failure.reason == "it is not below /data/: give the folder of all images as --path-root, or leave it out"


@given(paths)
def test_a_suffix_is_split_off_as_training_tools_do(name: str) -> None:
    stem, suffix = split_suffix(name)
    assert stem + suffix == name
    if suffix:
        assert suffix == PurePosixPath(name).suffix
