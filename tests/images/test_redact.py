import time

import pytest

from walkcut.images import redact


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("data:image/png;base64," + "A" * 1000, "'data:… (1022 characters)'"),
        ("https://u:pass@h/a.jpg?X-Amz-Signature=1", "'https://…@h/a.jpg?…'"),
        ("https://h/a.jpg#part", "'https://h/a.jpg#…'"),
        ("//u:pass@h/@scope/a.jpg", "'//…@scope/a.jpg'"),
        ("u:pass@h:8080", "'…@h:8080'"),
        ("/lists/u:pa/ss@h/a.jpg", "'/lists/…@h/a.jpg'"),
        ("/data/local-files/?d=a/b.jpg", "'/data/local-files/?d=a/b.jpg'"),
        ("x\n\ud800", r"'x\n\ud800'"),
        ("s3://b/" + "k" * 200, "'s3://b/" + "k" * 53 + "…" + "k" * 60 + "'"),
        (["/data/upload/1/a.jpg"], "(a list)"),
        (None, "(null)"),
    ],
)
def test_redact(reference: object, expected: str) -> None:
    assert redact(reference) == expected


@pytest.mark.parametrize("part", ["a", ":", "a:", "/a", "@", "%40", "&", "&a=", "[", "?", ";", " "])
@pytest.mark.parametrize("begin", ["", "http://", "http://h:", "x/", "/data/local-files/?d="])
def test_a_long_text_takes_no_longer_than_its_length(begin: str, part: str) -> None:
    start = time.thread_time()
    redact(begin + part * 100_000)
    assert time.thread_time() - start < 1
