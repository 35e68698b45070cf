"""What walkcut counts and measures, for Prometheus."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

_REQUESTS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 100)  # seconds
_STAGES = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100, 300)


class Metrics:
    """Counters and gauges, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter("walkcut_requests", "Requests", ["endpoint", "status"], registry=registry)
        self.seconds = Histogram(
            "walkcut_request_seconds", "Time to answer", ["endpoint"], registry=registry, buckets=_REQUESTS
        )
        self.predicted = Histogram(
            "walkcut_predict_seconds", "Time to predict, by who asked", ["who"], registry=registry, buckets=_REQUESTS
        )
        self.tasks = Counter("walkcut_tasks", "Tasks asked for", ["outcome"], registry=registry)
        self.predicting = Gauge("walkcut_predicting", "Predict requests being answered", registry=registry)
        self.waiting = Gauge("walkcut_waiting", "Images that wait for the model", ["who"], registry=registry)
        self.stages = Histogram(
            "walkcut_stage_seconds", "Time of the work's stages", ["stage"], registry=registry, buckets=_STAGES
        )
        self.trees = Counter("walkcut_trees", "Cut trees that were needed, by source", ["source"], registry=registry)
        self.failures = Counter("walkcut_failures", "Tasks and requests that failed", ["reason"], registry=registry)
        self.events = Counter("walkcut_events", "Webhook calls", ["outcome"], registry=registry)
        self.backlog = Gauge("walkcut_events_waiting", "Webhook calls not learned from yet", registry=registry)
        self.crashes = Counter(
            "walkcut_model_deaths", "Ends of the model's process while it was at work", ["reason"], registry=registry
        )
        self.quarantined = Gauge("walkcut_quarantined", "Images that are not tried any more", registry=registry)
        self.build = Info("walkcut_build", "What runs", registry=registry)
        ProcessCollector(registry=registry)

    def set_build_info(self, **parts: str) -> None:
        """Say what runs: the version of walkcut, and these parts."""
        self.build.info({"version": version("walkcut"), **parts})

    def watch_process(self, name: str, pid: Callable[[], int]) -> None:
        """Measure memory and processor time of another process too; metrics begin with `walkcut_<name>_process_`."""
        ProcessCollector(namespace=f"walkcut_{name}", pid=pid, registry=self.registry)

    def count_failure(self, error: Exception) -> None:
        """Count a failure by the name of its class."""
        self.failures.labels(type(error).__name__).inc()

    @contextmanager
    def time_stage(self, name: str) -> Iterator[None]:
        """Measure what runs inside, whether it fails or not."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.stages.labels(name).observe(time.perf_counter() - begin)
