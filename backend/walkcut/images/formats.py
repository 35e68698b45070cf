"""Formats of files by their first bytes: the image formats that are decoded, and others that people have."""

import re
from typing import Final

CONVERT: Final = "convert it to JPEG or PNG"
HEAD_BYTES: Final = 512  # enough to tell a format

DECODED: Final = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG\r\n\x1a\n",
    "WEBP": rb"RIFF....WEBP",
    "GIF": rb"GIF8[79]a",
    "BMP": rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
    "PPM": rb"P[456f]\s",
    "AVIF": rb"\0\0..ftyp(avi[fs]|mi[fa]1.{4}(.{4})*?avif)",
}

_OTHERS: Final = {
    "HEIC": rb"....ftyp(he[iv]|mif1|msf1)",
    "JPEG 2000": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "JPEG XL": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "SVG": rb"(\xef\xbb\xbf)?\s*<(\?xml|!DOCTYPE svg|svg|!--).*<?svg\b|\s*<svg\b",
    "Photoshop": rb"8BPS",
    "OpenEXR": rb"v/1\x01",
    "DICOM": rb".{128}DICM",
    "icon": rb"\0\0\x01\0[\x01-\x20]\0",
    "PDF": rb"%PDF-",
    "raw photo": rb"IIRO|IIRS|IIU\0|FUJIFILMCCD-RAW|....ftypcrx ",
    "ZIP archive": rb"PK\x03\x04",
    "gzip archive": rb"\x1f\x8b\x08",
    "Git LFS pointer": rb"version https://git-lfs",
    "plain-text PPM": rb"P[123]\s+[\d#]",
    "macOS metadata": rb"\0\x05\x16[\0\x07]",
}

# Raw photos that are TIFF files, and whose first image is a thumbnail.
RAW_SUFFIXES: Final = frozenset(
    (".3fr", ".arw", ".cr2", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".kdc", ".mef", ".mos", ".nef", ".nrw", ".pef",
     ".sr2", ".srf", ".srw")
)  # fmt: skip


def decoded_format(head: bytes) -> str:
    """Return the name of the decoded format that a file's first bytes have, empty for none.

    >>> decoded_format(b"GIF89a..."), decoded_format(b"BM are two letters")
    ('GIF', '')
    """
    return _match(DECODED, head)


def other_format(head: bytes) -> str:
    """Return the name of another format that people have, empty if it is unknown."""
    return _match(_OTHERS, head)


def _match(formats: dict[str, bytes], head: bytes) -> str:
    head = head[:HEAD_BYTES]
    return next((name for name, pattern in formats.items() if re.match(pattern, head, re.DOTALL)), "")
