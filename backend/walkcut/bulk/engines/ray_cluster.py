"""Machines of a Ray cluster: connect to them, and check that they have the same walkcut and see the same folders."""

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
    """Connect to Ray for the block, unless this process is connected already; signal handlers are kept."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # noqa: TID251 - Ray has no other switch
    before = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
    except (ConnectionError, RuntimeError, ValueError, RayError) as error:
        raise SettingsError(
            f"Ray cannot be started ({error}): set RAY_ADDRESS to the address of a cluster, or to local"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def shared_fs_marker(run_dir: Path, *shared_dirs: Path) -> Iterator[dict[Path, str]]:
    """Write a marker file into each folder for the block; yield the markers' paths and contents.

    The name depends on `run_dir`, which belongs to this run alone.
    """
    name = hashlib.sha256(str(run_dir.resolve()).encode()).hexdigest()[:16]
    markers = {folder.resolve() / f".{name}.run": secrets.token_hex() for folder in (run_dir, *shared_dirs)}
    try:
        for path, content in markers.items():
            with atomic_file(path) as write:
                write(content.encode())
        yield markers
    finally:
        for path in markers:
            path.unlink(missing_ok=True)


def verify_marker(markers: Mapping[Path, str]) -> None:
    """Check that this machine sees the marked folders. Raises `SettingsError` with its name otherwise."""
    for path, content in markers.items():
        if not path.exists() or path.read_text() != content:
            raise SettingsError(
                f"the machine {socket.gethostname()} does not see {path.parent}, or sees another folder of that name: "
                "choose an --out and a WALKCUT_STATE_DIR on a file system that the whole cluster shares"
            )


def available_slots(resources: Mapping[str, float]) -> int:
    """Return how many processes that need these amounts of CPU and GPU fit on the machines."""
    return sum(
        min(int(node["Resources"].get(name, 0) / amount) for name, amount in resources.items() if amount)
        for node in _nodes()
    )


def _nodes() -> list[dict[str, Any]]:
    """Return the machines that can run processes."""
    return [node for node in cast(Any, ray).nodes() if node["Alive"] and {"CPU", "GPU"} & node["Resources"].keys()]


def check_walkcut_versions() -> None:
    """Check that all machines have this version of walkcut. Raises `SettingsError` with the first that has not."""
    get_version, nodes = ray.remote(num_cpus=0)(metadata.version), _nodes()
    strategies = [NodeAffinitySchedulingStrategy(node["NodeID"], soft=False) for node in nodes]
    versions = [get_version.options(scheduling_strategy=strategy).remote("walkcut") for strategy in strategies]
    for node, version in zip(nodes, versions, strict=True):
        try:
            installed = f"walkcut {ray.get(version)}"
        except metadata.PackageNotFoundError:
            installed = "no walkcut"
        if installed != f"walkcut {_VERSION}":
            raise SettingsError(
                f"the machine {node['NodeManagerHostname']} ({node['NodeManagerAddress']}) has {installed}, this one "
                f"{_VERSION}: install the same version on all machines of the cluster"
            )
