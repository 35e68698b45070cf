"""Time of /health and /setup while predictions are computed: `python -m benchmarks.responsiveness`."""

import base64
import io
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import requests
from PIL import Image

SAMPLE = Path(__file__).parents[1] / "labelstudio_config" / "sample.jpg"
CONFIG = (SAMPLE.parent / "walkcut.xml").read_text(encoding="utf-8")
SETUP = {"project": "1.0", "schema": CONFIG, "hostname": "", "access_token": "", "extra_params": None}


def make_image(number: int) -> str:
    """Return a reference to a new 1024×768 image."""
    with Image.open(SAMPLE) as image:
        pixels = np.asarray(image.resize((1024, 768))).astype(np.int16)
    noisy = pixels + np.random.default_rng(number).integers(-3, 4, pixels.shape)
    file = io.BytesIO()
    Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def seconds(method: str, url: str, document: Any) -> float:
    """Return the seconds of one call on a new connection, as Label Studio makes it."""
    begin = time.perf_counter()
    requests.request(method, url, json=document, timeout=100).raise_for_status()
    return time.perf_counter() - begin


def main() -> None:
    """Print the slowest answers while two requests of six images each are predicted."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    requested = [[{"id": n, "data": {"image": make_image(n)}} for n in range(first, first + 6)] for first in (1, 7)]
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "walkcut", "serve", "--port", str(port)]
        environment = {"WALKCUT_MODEL": "classical", "WALKCUT_STATE_DIR": state, "WALKCUT_LOG_LEVEL": "WARNING"}
        server = subprocess.Popen(command, env=environment)
        try:
            wait_until_up(url)
            callers = [
                threading.Thread(
                    target=seconds, args=("POST", f"{url}/predict", {"tasks": tasks, "label_config": CONFIG})
                )
                for tasks in requested
            ]
            for caller in callers:
                caller.start()
            health, setup = [], []
            while any(caller.is_alive() for caller in callers):
                health.append(seconds("GET", f"{url}/health", None))
                setup.append(seconds("POST", f"{url}/setup", SETUP))
                time.sleep(0.05)
        finally:
            server.terminate()
            server.wait()
    for name, times in (("/health", health), ("/setup", setup)):
        print(f"{name}: {len(times)} calls while predicting, longest {max(times) * 1e3:.0f} ms")


def free_port() -> int:
    """Return an unused port on loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until_up(url: str) -> None:
    """Wait until the server answers."""
    for _ in range(600):
        try:
            requests.get(f"{url}/health", timeout=1)
        except requests.ConnectionError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(f"no answer from {url}")


if __name__ == "__main__":
    main()
