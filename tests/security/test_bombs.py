"""Attacks by small files that decode to gigabytes or take minutes: images, data: URLs and tree files."""

import io
import struct
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL.GifImagePlugin import GifImageFile

from tests.builders.image_files import encode_image
from tests.builders.trees import ROW
from walkcut.errors import ImageDecodeError, ImageFetchError, TreeFileError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.images import DecodeLimits, FetchPolicy, decode
from walkcut.images.fetch import Fetcher

MEGABYTE = 1 << 20
LIMITS = DecodeLimits()
GREY = Image.new("L", (16, 16), 128)


def peak(work: Callable[[], object]) -> int:
    """Return the peak of allocated memory in bytes."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def refused(data: bytes, message: str) -> None:
    with pytest.raises(ImageDecodeError, match=message):
        decode(data, LIMITS)


# Images


def png(*chunks: tuple[bytes, bytes], size: tuple[int, int] = (16, 16)) -> bytes:
    """Return a grey PNG with these chunks before its pixels."""
    header = struct.pack(">IIBBBBB", *size, 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 17 * 16)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


PACKED = zlib.compress(bytes(100 * MEGABYTE))  # a hundred kilobytes


@pytest.mark.parametrize(
    "chunk",
    [
        (b"zTXt", b"Comment\0\0" + PACKED),
        (b"iTXt", b"Comment\0\1\0\0\0" + PACKED),
        (b"iCCP", b"profile\0\0" + PACKED),
    ],
    ids=["zTXt", "iTXt", "iCCP"],
)
def test_a_png_with_text_or_a_profile_of_a_hundred_megabytes(chunk: tuple[bytes, bytes]) -> None:
    data = png(chunk)
    assert peak(lambda: decode(data, LIMITS)) < MEGABYTE


def test_a_png_with_hundreds_of_texts_of_a_megabyte_each() -> None:
    text = zlib.compress(bytes(MEGABYTE - 1))
    chunks = [(b"zTXt", b"%d\0\0" % index + text) for index in range(300)]
    data = png(*chunks)
    assert peak(lambda: decode(data, LIMITS)) < MEGABYTE


@pytest.mark.parametrize("size", [(65535, 65535), (2**31 - 1, 16), (10_001, 10_000)])
def test_a_png_of_a_huge_declared_size(size: tuple[int, int]) -> None:
    assert peak(lambda: refused(png(size=size), r"pixels, more than 100000000\. Scale it down")) < MEGABYTE


def test_a_jpeg_of_a_huge_declared_size() -> None:
    data = bytearray(encode_image(GREY, "JPEG"))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xff\xff\xff"
    refused(bytes(data), "65535 x 65535 = 4294836225 pixels")


def test_a_progressive_jpeg_of_a_million_scans() -> None:
    """Each scan passes over all pixels and takes thirty bytes."""
    data = encode_image(GREY.resize((1000, 1000)), "JPEG", progressive=True)
    scan = data[data.rindex(b"\xff\xda") : -2]
    assert decode(data[:-2] + scan * 10 + b"\xff\xd9", LIMITS).shape == (1000, 1000, 3)
    refused(data[:-2] + scan * 1_000_000 + b"\xff\xd9", "a JPEG of 10000[0-9]{2} scans")


def test_a_tiff_of_few_pixels_in_huge_tiles() -> None:
    """libtiff allocated a tile of 1.8 GB for these 234 bytes."""
    tags = {256: 16, 257: 16, 258: 8, 259: 5, 262: 1, 277: 1, 322: 60_000, 323: 30_000, 324: 200, 325: 34}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    data = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(100)
    refused(data, "a TIFF of 16 x 16 pixels in tiles of 60000 x 30000")


@pytest.mark.filterwarnings("ignore")  # Pillow warns at its own limit and raises at twice that
@pytest.mark.parametrize("side", [12_000, 65_535])
def test_a_gif_whose_frame_is_larger_than_its_screen(side: int) -> None:
    data = bytearray(encode_image(GREY, "GIF"))
    frame = data.index(b",\0\0\0\0")
    struct.pack_into("<HH", data, frame + 5, side, side)
    assert peak(lambda: refused(bytes(data), "damaged|Scale it down")) < MEGABYTE


def test_an_animation_of_many_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    frames = [Image.new("L", (16, 16), index) for index in range(200)]
    data = encode_image(frames[0], "GIF", save_all=True, append_images=frames[1:])
    seek = GifImageFile._seek

    def first_only(self: GifImageFile, frame: int, update_image: bool = True) -> None:
        assert frame == 0
        seek(self, frame, update_image)

    monkeypatch.setattr(GifImageFile, "_seek", first_only)
    assert decode(data, LIMITS).max() == 0


def test_a_tiff_whose_pages_form_a_circle() -> None:
    data = bytearray(encode_image(GREY, "TIFF"))
    (first,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, first)
    struct.pack_into("<I", data, first + 2 + 12 * count, first)
    assert decode(bytes(data), LIMITS).shape == (16, 16, 3)


@pytest.mark.parametrize(
    "start",
    [b'<svg xmlns="http://www.w3.org/2000/svg">', b"<?xml version='1.0'?><svg>", b"<html>", b"%!PS-Adobe-3.0 EPSF-3.0",
     b"\xc5\xd0\xd3\xc6", b"%PDF-1.7", b"8BPS\0\1", b"SIMPLE  =", b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51",
     b"\0\0\1\0\1\0", b"icns", b"\0\0\0 ftypmif1", b"\0\0\0 ftypheic", b"\xd7\xcd\xc6\x9a",
     b"P1\n", b"P2\n", b"P3\n", b"PK\3\4",
     b"\x1f\x8b", b"\x89HDF", b"CDF\1", b"GRIB", b"DDS ", b"qoif", b"\0\0\1\xb3", b"gimp xcf"],
)  # fmt: skip
def test_a_file_of_another_format(start: bytes) -> None:
    refused(start + bytes(100), "not in a supported image format")


# References that hold their image


@pytest.mark.parametrize(
    "reference",
    ["data:," + "%" * MEGABYTE, "data:," + "%41" * MEGABYTE, "data:;base64," + "A " * MEGABYTE,
     "data:;base64," + "%0A" * MEGABYTE, "data:;base64," + "A" * 4 * MEGABYTE],
    ids=["broken escapes", "escapes", "blanks", "escaped blanks", "base64"],
)  # fmt: skip
def test_a_data_url_takes_memory_in_proportion_to_its_length(reference: str) -> None:
    fetcher = Fetcher(FetchPolicy(), None)
    assert peak(lambda: fetcher.fetch(reference)) < 4 * len(reference) + 12 * MEGABYTE


def test_a_data_url_larger_than_the_limit() -> None:
    fetcher, reference = Fetcher(FetchPolicy(max_bytes=1000), None), "data:," + "%41" * MEGABYTE
    with pytest.raises(ImageFetchError, match="more than 1000 bytes"):
        fetcher.fetch(reference)


# Cut trees


def archive(files: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", packing) as written:
        for name, body in files.items():
            written.writestr(name, body)
    return file.getvalue()


def unpacked() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(ROW.to_bytes())) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def npy(array: np.ndarray, *, objects: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=objects)
    return file.getvalue()


def no_tree(data: bytes, message: str) -> None:
    with pytest.raises(TreeFileError, match=message):
        CutTree.from_bytes(data)


def test_the_tree_file_that_the_others_are_made_of_is_read() -> None:
    assert CutTree.from_bytes(archive(unpacked())).size == ROW.size


def test_a_tree_file_that_unpacks_to_gigabytes() -> None:
    def forge(size: int) -> bytes:
        data = bytearray(archive(unpacked()))
        struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, size)
        return bytes(data)

    no_tree(forge(1 << 31), "unpacks to over 1 GiB")


def test_a_tree_file_that_lies_about_its_sizes() -> None:
    data = bytearray(archive(unpacked() | {"leaves.npy": npy(np.zeros((10_000, 10_000), np.uint16))}))
    for entry in (at for at in range(len(data)) if data[at : at + 4] == b"PK\1\2"):
        struct.pack_into("<I", data, entry + 24, 128)
    assert peak(lambda: no_tree(bytes(data), "not a cut tree")) < 20 * MEGABYTE


def test_a_tree_file_with_a_shape_that_no_memory_holds() -> None:
    for shape in ("(1000000, 1000000)", "(99999999999999999999, 2)", "(-1, 2)", "(4611686018427387904, 4)"):
        header = f"{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
        forged = b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()
        no_tree(archive(unpacked() | {"leaves.npy": forged}), "not a cut tree")


class Touching:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_a_tree_file_with_a_pickle(tmp_path: Path) -> None:
    pickled = npy(np.array([[Touching(tmp_path / "touched")]], object), objects=True)
    for data in (archive(unpacked() | {"leaves.npy": pickled}), archive({"evil.npy": pickled}), pickled, pickled[128:]):
        no_tree(data, "not a cut tree")
    assert not (tmp_path / "touched").exists()


def test_a_tree_file_that_is_another_file_too() -> None:
    """numpy looks at the start of a file, zip at its end."""
    no_tree(b"PK\5\6" + npy(np.zeros(3)), "not a cut tree")
    assert CutTree.from_bytes(npy(np.zeros(3)) + ROW.to_bytes()).size == ROW.size


@pytest.mark.parametrize("packing", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_tree_file_of_another_compression(packing: int) -> None:
    no_tree(archive(unpacked(), packing), "its compression is unknown")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "name", ["../leaves.npy", "/leaves.npy", "leaves", "leaves.npy/", "leaves.npy.npy", "x" * 60_000]
)
def test_a_tree_file_with_another_member(name: str) -> None:
    no_tree(archive(unpacked() | {name: b"x"}), "not a cut tree")


def test_a_tree_file_with_a_hundred_thousand_members() -> None:
    no_tree(archive({str(index): b"" for index in range(100_000)}, zipfile.ZIP_STORED), "this version")


@pytest.mark.parametrize(
    "changed",
    [
        {"merges": np.array([[0, 1], [2, 3], [6, 5]])},
        {"merges": np.array([[0, 1], [2, 3], [4, 2**63 - 1]])},
        {"costs": np.array([np.inf, 0.5, np.nan])},
        {"costs": np.array([np.inf, np.inf, 0.1])},
        {"leaves": np.array([[0, 70_000]], np.uint32)},
        {"leaves": np.array([[0, 2**64 - 1]], np.uint64)},
    ],
    ids=["circle", "overflow", "nan", "inf", "too many leaves", "huge leaf"],
)
def test_arrays_that_are_no_tree(changed: dict[str, np.ndarray]) -> None:
    no_tree(archive(unpacked() | {f"{name}.npy": npy(array) for name, array in changed.items()}), "contradict")


def test_a_tree_with_more_leaves_than_16_bits_count() -> None:
    rows = 70_000
    chain = np.stack([np.arange(1, rows + 1), np.concatenate([[0], np.arange(rows + 1, 2 * rows)])], axis=1)
    leaves, descriptors = np.arange(rows + 1, dtype=np.uint32)[None], np.zeros((rows + 1, 1), np.float16)
    changed = {"merges": chain, "costs": np.zeros(rows), "is_cut": np.zeros(rows, bool)}
    changed |= {"leaves": leaves, "descriptors": descriptors}
    no_tree(archive(unpacked() | {f"{name}.npy": npy(array) for name, array in changed.items()}), "contradict")
