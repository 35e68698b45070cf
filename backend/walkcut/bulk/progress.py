"""Progress of a run: statistics, a bar or log lines, and Prometheus metrics."""

import logging
import sys
import threading
import time
from collections import Counter as Sums
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, start_http_server
from tqdm import tqdm

from walkcut.bulk.items import ItemResult, Outcome
from walkcut.errors import SettingsError, WalkcutError

log = logging.getLogger(__name__)

OutcomeObserver = Callable[[Outcome], None]

_LOG_INTERVAL_S = 10.0  # between lines if there is no terminal


@dataclass
class RunStats:
    """Running totals: images, failures, bytes of new trees, and seconds by stage, summed over all processes."""

    done: int = 0
    failed: int = 0
    tree_bytes: int = 0
    stages: Sums[str] = field(default_factory=Sums)
    start: float = field(default_factory=time.perf_counter)

    def __call__(self, outcome: Outcome) -> None:
        """Count an outcome."""
        if isinstance(outcome, ItemResult):
            self.done += 1
            self.tree_bytes += outcome.tree_bytes
            self.stages.update(outcome.seconds)
        else:
            self.failed += 1

    def report(self) -> dict[str, Any]:
        """Return the totals and the rate as a JSON object."""
        seconds = time.perf_counter() - self.start
        return {
            "images": self.done,
            "failed": self.failed,
            "seconds": round(seconds, 3),
            "images_per_second": round(self.done / seconds, 3),
            "tree_bytes": self.tree_bytes,
            "seconds_per_stage": {name: round(value, 3) for name, value in self.stages.items()},
        }


@contextmanager
def progress_bar(
    stats: RunStats, total: Callable[[], int] | None = None, *, already_done: int = 0
) -> Iterator[OutcomeObserver]:
    """Show the progress that `stats` counts on standard error: a bar on a terminal, else a log line at intervals.

    The bar shows the remaining time once `total` has returned, in a thread, the number of all images; earlier runs
    finished `already_done` of them.
    """
    if not sys.stderr.isatty():
        yield _log_lines(stats)
        return
    with tqdm(unit="image", smoothing=0.05, initial=already_done) as bar:
        if total is not None:
            threading.Thread(target=_set_total, args=(bar, total), daemon=True).start()
        gpu = gpu_use()

        def update(_outcome: Outcome) -> None:
            nonlocal gpu
            bar.set_postfix({"failed": stats.failed, **gpu}, refresh=False)
            if bar.update():  # the bar was drawn, which it is not for every image
                gpu = gpu_use()

        yield update


def _log_lines(stats: RunStats) -> OutcomeObserver:
    """Return an observer that logs progress at intervals."""
    last = time.perf_counter()

    def log_progress(_outcome: Outcome) -> None:
        nonlocal last
        if time.perf_counter() - last >= _LOG_INTERVAL_S:
            last, rate = time.perf_counter(), stats.report()["images_per_second"]
            gpu = "".join(f", {name} {value}" for name, value in gpu_use().items())
            log.info("%d done, %d failed, %.2f images/s%s", stats.done, stats.failed, rate, gpu)

    return log_progress


def gpu_use() -> dict[str, str]:
    """Return the used fractions of the GPU's memory and time, by all processes; empty if this process uses no GPU.

    The fraction of time is left out if NVIDIA's Python library cannot tell it.
    """
    torch = sys.modules.get("torch")  # a process that has not loaded it uses no GPU
    if torch is None or not torch.cuda.is_initialized():
        return {}
    free, total = torch.cuda.mem_get_info()
    use = {"gpu_memory": f"{1 - free / total:.0%}"}
    try:
        return {**use, "gpu": f"{torch.cuda.utilization()}%"}
    except Exception as error:  # noqa: BLE001 - its errors have no common class, and may not be importable
        log.debug("the GPU's utilisation cannot be read: %s", error)
        return use


def _set_total(bar: "tqdm[Any]", total: Callable[[], int]) -> None:
    try:
        bar.total = total()
    except WalkcutError as error:  # the run reports it too
        log.debug("the images cannot be counted: %s", error)


@contextmanager
def serve_metrics(host: str, port: int) -> Iterator[OutcomeObserver]:
    """Serve Prometheus metrics at `host` and `port` until the block ends. Raises `SettingsError` for a port in use."""
    registry = CollectorRegistry()
    images = Counter("walkcut_bulk_images", "Images by outcome", ["outcome"], registry=registry)
    seconds = Counter("walkcut_bulk_stage_seconds", "Seconds by stage, of all processes", ["stage"], registry=registry)
    failures = Counter("walkcut_bulk_failures", "Images that failed, by stage", ["stage"], registry=registry)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsError(
            f"metrics cannot be served on {host}:{port} ({error}): choose another --metrics-port"
        ) from error

    def count(outcome: Outcome) -> None:
        images.labels("done" if isinstance(outcome, ItemResult) else "failed").inc()
        if isinstance(outcome, ItemResult):
            for stage, value in outcome.seconds.items():
                seconds.labels(stage).inc(value)
        else:
            failures.labels(outcome.stage).inc()

    try:
        yield count
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
