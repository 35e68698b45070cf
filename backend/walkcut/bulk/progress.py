"""How far a bulk run is: counted, shown, and measured by Prometheus."""

import logging
import sys
import threading
import time
from collections import Counter as Sums
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from prometheus_client import CollectorRegistry, Counter, start_http_server
from tqdm import tqdm

from walkcut.bulk.checkpoint import ItemFailure, ItemResult, Outcome
from walkcut.errors import SettingsError, WalkcutError

log = logging.getLogger(__name__)

Observer = Callable[[Outcome], None]

_EVERY_S = 10.0  # between lines where there is no terminal


@dataclass
class RunStats:
    """What a run has come to so far: images, failures, bytes of new trees, and seconds by stage of all processes."""

    done: int = 0
    failed: int = 0
    tree_bytes: int = 0
    stages: Sums[str] = field(default_factory=Sums)
    begun: float = field(default_factory=time.perf_counter)

    def __call__(self, outcome: Outcome) -> None:
        """Count an outcome."""
        if isinstance(outcome, ItemResult):
            self.done += 1
            self.tree_bytes += outcome.tree_bytes
            self.stages.update(outcome.seconds)
        else:
            self.failed += 1

    def report(self) -> dict[str, Any]:
        """Images, failures, seconds and rate of this run so far, and seconds by stage, as JSON has them."""
        seconds = time.perf_counter() - self.begun
        return {
            "images": self.done,
            "failed": self.failed,
            "seconds": round(seconds, 3),
            "images_per_second": round(self.done / seconds, 3),
            "seconds_per_stage": {name: round(value, 3) for name, value in self.stages.items()},
        }


@contextmanager
def progress_bar(total: Callable[[], int] | None = None, *, before: int = 0) -> Iterator[Observer]:
    """Show what is counted on standard error: a bar on a terminal, else a line now and then.

    The bar has the time left once `total` has come to an answer in a thread of its own; of these, `before` are settled.
    """
    if not sys.stderr.isatty():
        yield _Lines()
        return
    with tqdm(unit="image", smoothing=0.05, initial=before) as bar:
        if total is not None:
            threading.Thread(target=_count, args=(bar, total), daemon=True).start()
        failed, gpu = 0, gpu_use()

        def watch(outcome: Outcome) -> None:
            nonlocal failed, gpu
            failed += isinstance(outcome, ItemFailure)
            bar.set_postfix({"failed": failed, **gpu}, refresh=False)
            if bar.update():  # it was drawn, which is not done for every image
                gpu = gpu_use()

        yield watch


class _Lines:
    """Progress as lines of the log."""

    def __init__(self) -> None:
        self._tally, self._last = RunStats(), time.perf_counter()

    def __call__(self, outcome: Outcome) -> None:
        """Count an outcome, and say how many there are if that was not said of late."""
        self._tally(outcome)
        now = time.perf_counter()
        if now - self._last >= _EVERY_S:
            self._last = now
            report = self._tally.report()
            rate = report["images_per_second"]
            gpu = "".join(f", {name} {value}" for name, value in gpu_use().items())
            log.info("%d done, %d failed, %.2f images/s%s", report["images"], report["failed"], rate, gpu)


def gpu_use() -> dict[str, str]:
    """Shares of the GPU's memory and time that are in use, by whomever, where this process works with one.

    The share of time is left out where NVIDIA's library for Python is not installed, or does not know.
    """
    if not torch.cuda.is_initialized():
        return {}
    free, total = torch.cuda.mem_get_info()
    use = {"gpu_memory": f"{1 - free / total:.0%}"}
    try:
        return {**use, "gpu": f"{torch.cuda.utilization()}%"}
    except Exception as error:  # noqa: BLE001 - the library has errors of its own, and may not be there to name them
        log.debug("the GPU's use cannot be read: %s", error)
        return use


def _count(bar: "tqdm[Any]", total: Callable[[], int]) -> None:
    try:
        bar.total = total()
    except WalkcutError as error:  # the run meets it too
        log.debug("not counted: %s", error)


@contextmanager
def metrics(host: str, port: int) -> Iterator[Observer]:
    """Count for Prometheus, which may ask at `host` and `port` meanwhile. Raises `SettingsError` for a port in use."""
    registry = CollectorRegistry()
    images = Counter("walkcut_bulk_images", "Images by outcome", ["outcome"], registry=registry)
    seconds = Counter("walkcut_bulk_stage_seconds", "Seconds by stage, of all processes", ["stage"], registry=registry)
    failures = Counter("walkcut_bulk_failures", "Images that failed, by stage", ["stage"], registry=registry)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsError(
            f"metrics cannot be had on {host}:{port} ({error}): choose another --metrics-port"
        ) from error

    def watch(outcome: Outcome) -> None:
        images.labels("done" if isinstance(outcome, ItemResult) else "failed").inc()
        if isinstance(outcome, ItemResult):
            for stage, value in outcome.seconds.items():
                seconds.labels(stage).inc(value)
        else:
            failures.labels(outcome.stage).inc()

    try:
        yield watch
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def notify(outcomes: Iterable[Outcome], observers: Iterable[Observer]) -> Iterator[Outcome]:
    """The same outcomes, each told to the watchers when it has been dealt with."""
    watching = list(observers)
    for outcome in outcomes:
        yield outcome
        for watch in watching:
            watch(outcome)
