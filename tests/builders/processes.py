"""Servers run for the time of a test, and waiting for what they do."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import requests

Value = TypeVar("Value")
STOP_S = 15.0  # a server told to end gets so long before it is killed


def wait_for(what: str, condition: Callable[[], Value | None], timeout_s: float) -> Value:
    """The first true value of `condition`, asked for again and again; TimeoutError after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout_s:.0f} s in vain for {what}")
        time.sleep(0.1)
    return value


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_up(url: str) -> bool:
    """Whether a server answers its health check with status UP."""
    try:
        return bool(requests.get(f"{url}/health", timeout=2).json().get("status") == "UP")
    except requests.RequestException:
        return False


def run_walkcut(environment: Mapping[str, str], *arguments: object) -> str:
    """What the command `walkcut` prints, as `run` has it."""
    return run([sys.executable, "-m", "walkcut", *map(str, arguments)], environment)


def run(command: Sequence[str], environment: Mapping[str, str], folder: Path | None = None) -> str:
    """What a command prints, here or in a folder; a status other than 0 is a RuntimeError with its last words.

    `environment` is laid over this process's own.
    """
    whole = {**os.environ, **environment}
    done = subprocess.run(command, cwd=folder, env=whole, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


@contextmanager
def served(
    command: Sequence[str], url: str, *, environment: Mapping[str, str], log: Path, timeout_s: float
) -> Iterator[None]:
    """Run a server until the block ends; the block starts when `url`/health says UP.

    `environment` is laid over this process's own. A server that ends early is a RuntimeError with its last words.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
        )

    def ready() -> bool:
        if process.poll() is not None:
            last_words = log.read_text(encoding="utf-8", errors="replace")[-3000:]
            raise RuntimeError(f"{command[0]} ended with status {process.returncode}:\n{last_words}")
        return is_up(url)

    try:
        wait_for(f"{url}/health (log: {log})", ready, timeout_s)
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def start_thread(target: Callable[[], object]) -> threading.Thread:
    """Return a started daemon thread."""
    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended but was not reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
