"""Fuzz tests of image references and of web servers' responses."""

import socket
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import strategies as st

from tests.builders.fuzzing import JSON, Parser, as_text, fuzz_tests, mutated
from walkcut.errors import ImageFetchError
from walkcut.images import FetchPolicy, LabelStudioAccess, redact
from walkcut.images.fetch import Fetcher

ROOT = Path(__file__).parents[2]


def no_address(host: str, port: int) -> tuple[Any, ...]:
    raise OSError("no such host")


FETCHER = Fetcher(
    FetchPolicy(local_files_root=ROOT / "labelstudio_config"), LabelStudioAccess("http://ls/x"), resolve=no_address
)
REFERENCES = [
    b"http://ls/x/data/upload/1/a.jpg", b"/data/local-files/?d=../a.jpg", b"https://u:p@[::1%25a]:80/a?b#c", b"s3://b/k",
    b"data:image/png;base64,aGVsbG8=", b"/x/data/local-files?d=%2e%2e%2f%00&d=b", b"//h/a", b"azure-blob://a/b c",
]  # fmt: skip
RESPONSES = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nimage",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nim\r\n3;x=y\r\nage\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 200 OK\r\nContent-Encoding: identity\r\n\r\nimage",
    b"HTTP/1.1 302 Found\r\nLocation: /a\r\n b\r\nLocation: http://[\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
]
OPEN = Fetcher(FetchPolicy(max_bytes=1000, timeout=2, max_redirects=2, allow_private_hosts=True), None)


def fetch(value: object) -> None:
    redact(value)
    assert isinstance(FETCHER.fetch(value, 7), bytes)


def respond(data: bytes) -> bytes:
    """Fetch from a server that answers every request with these bytes."""
    with ExitStack() as sockets:

        def connect(*_: object) -> socket.socket:
            client, server = socket.socketpair()
            sockets.enter_context(server)
            server.sendall(data)
            server.shutdown(socket.SHUT_WR)
            return client

        with patch("walkcut.images.transport.socket.create_connection", connect):
            body = OPEN.fetch("http://127.0.0.1/a.jpg")
    assert len(body) <= 1000
    return body


@pytest.mark.parametrize("sample", RESPONSES[:3])
def test_samples_are_read(sample: bytes) -> None:
    """Otherwise the fuzz tests would find nothing."""
    assert respond(sample) == b"image"


PARSERS = [
    Parser("references", fetch, mutated(REFERENCES).map(as_text) | JSON, (ImageFetchError,)),
    Parser("responses", respond, mutated(RESPONSES) | st.binary(), (ImageFetchError,)),
]
test_a_parser_gives_a_value_or_its_error, test_a_parser_gives_a_value_or_its_error_at_length = fuzz_tests(PARSERS)
