"""Numbered images, the same at each run, and a web server on loopback that serves them."""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_SIZES = ((640, 480), (800, 600), (1024, 768))
_SHAPES = 14


def scene(number: int) -> Image.Image:
    """Return an image of overlapping shapes in soft colours with grain, in one of three sizes."""
    chance = np.random.default_rng(number)
    width, height = size = _SIZES[number % len(_SIZES)]
    image = Image.new("RGB", size, _colour(chance))
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, height * chance.uniform(0.4, 0.7), width, height), _colour(chance))
    for place in range(_SHAPES):
        x, y = chance.uniform(0, width), chance.uniform(0, height)
        box = (x, y, x + chance.uniform(0.1, 0.35) * width, y + chance.uniform(0.1, 0.35) * height)
        (draw.ellipse if place % 2 else draw.rectangle)(box, _colour(chance))
    soft = np.asarray(image.filter(ImageFilter.GaussianBlur(1.5)), np.float32)
    grainy = soft + chance.normal(0, 6, soft.shape)
    return Image.fromarray(np.clip(grainy, 0, 255).astype(np.uint8))


def _colour(chance: np.random.Generator) -> tuple[int, int, int]:
    red, green, blue = chance.integers(30, 226, 3).tolist()
    return red, green, blue


def jpeg(number: int) -> bytes:
    """Return the JPEG file of an image."""
    file = io.BytesIO()
    scene(number).save(file, "JPEG", quality=90)
    return file.getvalue()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        """Send image 7 for /7.jpg."""
        body = jpeg(int(self.path.strip("/").partition(".")[0]))
        self.send_response(200)
        self.send_header("Content-Type", "image/jpeg")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Say nothing of each request."""


@contextmanager
def image_host() -> Iterator[str]:
    """Serve image N at /N.jpg until the block ends; yield the server's address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
