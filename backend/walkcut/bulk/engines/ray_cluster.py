"""The machines of a Ray cluster: reached, and known to have the same walkcut and to see the same folders."""

import hashlib
import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from walkcut.errors import SettingsError
from walkcut.storage import atomic_file

_VERSION = metadata.version("walkcut")


@contextmanager
def connected() -> Iterator[None]:
    """Ray as this process uses it already, or else for a while; signals keep their meaning."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # noqa: TID251 - Ray has no other switch
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise SettingsError(f"Ray cannot be had ({error}): set RAY_ADDRESS to a cluster's, or to local") from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def shared_fs_marker(own: Path, *others: Path) -> Iterator[dict[Path, str]]:
    """Files in folders, of which the first is this run's alone, with what is in them: marks for other machines."""
    name = hashlib.sha256(str(own.resolve()).encode()).hexdigest()[:16]
    marks = {folder.resolve() / f".{name}.run": secrets.token_hex() for folder in (own, *others)}
    try:
        for mark, text in marks.items():
            with atomic_file(mark) as write:
                write(text.encode())
        yield marks
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)


def verify_marker(marks: Mapping[Path, str]) -> None:
    """See that this machine has the folders that were marked elsewhere. Raises `SettingsError` with its name."""
    for mark, text in marks.items():
        if not mark.exists() or mark.read_text() != text:
            raise SettingsError(
                f"the machine {socket.gethostname()} does not see {mark.parent}, or sees another folder of that name: "
                "choose an --out and a WALKCUT_STATE_DIR on a file system that the whole cluster shares"
            )


def available_slots(amounts: Mapping[str, float]) -> int:
    """How many processes the machines have room for that take such amounts of CPU and GPU."""
    return sum(
        min(int(node["Resources"].get(name, 0) / amount) for name, amount in amounts.items() if amount)
        for node in _nodes()
    )


def _nodes() -> list[dict[str, Any]]:
    """The machines that can work."""
    return [node for node in cast(Any, ray).nodes() if node["Alive"] and {"CPU", "GPU"} & node["Resources"].keys()]


def check_versions() -> None:
    """See that all machines have this walkcut. Raises `SettingsError` for one that has not."""
    ask, nodes = ray.remote(num_cpus=0)(metadata.version), _nodes()
    there = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    answers = [ask.options(scheduling_strategy=place).remote("walkcut") for place in there]
    for node, answer in zip(nodes, answers, strict=True):
        try:
            found = f"walkcut {ray.get(answer)}"
        except metadata.PackageNotFoundError:
            found = "no walkcut"
        if found != f"walkcut {_VERSION}":
            raise SettingsError(
                f"the machine {node['NodeManagerHostname']} ({node['NodeManagerAddress']}) has {found}, this one "
                f"{_VERSION}: install the same on all machines of the cluster"
            )
