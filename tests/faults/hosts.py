"""Hosts of images that misbehave, and a Label Studio that comes and goes."""

import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.faults.backend import FILE, PROJECT, make_image


class Host(ThreadingHTTPServer):
    """Answers by path; what hangs does so until `release` is set."""

    daemon_threads = True

    def __init__(self, answers: Mapping[str, "Answer"], port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.url, self.answers = f"http://127.0.0.1:{self.server_port}", answers
        self.asked: list[str] = []
        self.release = threading.Event()

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away while they are answered: that is what is tested."""


class _Handler(BaseHTTPRequestHandler):
    server: Host

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.asked.append(path)
        name = next((name for name in self.server.answers if path.startswith(name)), "")
        self.server.answers.get(name, missing)(self)

    do_POST = do_GET  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Keep the tests' output clean."""


Answer = Callable[[_Handler], None]


def _head(handler: _Handler, length: int, kind: str = "image/png") -> None:
    handler.send_response(200)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()


def good(handler: _Handler) -> None:
    """The image whose number stands at the end of the path."""
    digits = "".join(filter(str.isdigit, handler.path))
    body = make_image(int(digits or 0))
    _head(handler, len(body))
    handler.wfile.write(body)


def missing(handler: _Handler) -> None:
    """Nothing is there."""
    handler.send_error(404)


def silent(handler: _Handler) -> None:
    """Nothing is ever said."""
    handler.server.release.wait()


def dripping(handler: _Handler) -> None:
    """A byte now and then."""
    _head(handler, len(FILE))
    for byte in FILE:
        if handler.server.release.wait(0.3):
            return
        handler.wfile.write(bytes([byte]))


def half(handler: _Handler) -> None:
    """Half of the image, and no end."""
    _head(handler, len(FILE))
    handler.wfile.write(FILE[: len(FILE) // 2])
    handler.server.release.wait()


def reset(handler: _Handler) -> None:
    """Half of the image, then the connection breaks."""
    _head(handler, len(FILE))
    handler.wfile.write(FILE[: len(FILE) // 2])
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def document(content: Any) -> Answer:
    """A JSON document."""

    def answer(handler: _Handler) -> None:
        body = json.dumps(content).encode()
        _head(handler, len(body), "application/json")
        handler.wfile.write(body)

    return answer


def label_studio(annotations: list[dict[str, Any]]) -> dict[str, Answer]:
    """What a Label Studio answers whose project has one task, with these annotations."""

    def tasks(handler: _Handler) -> None:
        query = json.loads(parse_qs(urlsplit(handler.path).query)["query"][0])
        behind = query["filters"]["items"][-1]["value"]  # each page begins behind the last task of the one before
        listed = [{"id": 1, "data": {"photo": "/data/upload/1/1.png"}}] if behind == 0 else []
        document({"tasks": listed, "total": 1, "total_annotations": 1, "total_predictions": 0})(handler)

    return {
        "/data/upload": good,
        "/api/tasks/1/annotations": document(annotations),
        "/api/tasks": tasks,
        "/api/predictions": document([]),
        f"/api/projects/{PROJECT}/import/predictions": document({"created": 1}),
        f"/api/projects/{PROJECT}/": document({"id": int(PROJECT), "created_at": "1970-01-01T00:00:01Z"}),
    }


@contextmanager
def hosting(answers: Mapping[str, Answer], port: int = 0) -> Iterator[Host]:
    """A host that is up while the block runs."""
    with Host(answers, port) as host:
        thread = threading.Thread(target=host.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield host
        finally:
            host.release.set()
            host.shutdown()
            thread.join()
