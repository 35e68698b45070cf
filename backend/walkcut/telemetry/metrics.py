"""Counters, gauges and histograms for Prometheus."""

from collections.abc import Callable
from functools import partial
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

_REQUEST_BUCKETS = (0.01, 0.05, 0.1, 0.5, 1, 2, 5, 10, 30, 60, 100)  # seconds
_STAGE_BUCKETS = (0.001, 0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 100, 300)


class Metrics:
    """The metrics of one backend, in a registry of their own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram = partial(Histogram, registry=registry, buckets=_REQUEST_BUCKETS)
        self.requests = counter("walkcut_requests", "Requests", ["endpoint", "status"])
        self.seconds = histogram("walkcut_request_seconds", "Time to answer", ["endpoint"])
        self.predicted = histogram(
            "walkcut_predict_seconds", "Time to predict, for an annotator or a batch", ["caller"]
        )
        self.tasks = counter("walkcut_tasks", "Requested tasks", ["outcome"])
        self.predicting = gauge("walkcut_predicting", "Predict requests in progress")
        self.waiting = gauge("walkcut_waiting", "Images that wait for the model", ["caller"])
        self.stages = histogram("walkcut_stage_seconds", "Time of each stage", ["stage"], buckets=_STAGE_BUCKETS)
        self.trees = counter("walkcut_trees", "Requested cut trees, by source", ["source"])
        self.failures = counter("walkcut_failures", "Failed tasks and requests", ["reason"])
        self.events = counter("walkcut_events", "Webhook calls", ["outcome"])
        self.pending = gauge("walkcut_annotations_pending", "Annotations to be learned from")
        self.set_aside = gauge("walkcut_annotations_set_aside", "Annotations that could not be learned from")
        self.crashes = counter("walkcut_model_crashes", "Crashes and time-outs of the model's process", ["reason"])
        self.quarantined = gauge("walkcut_quarantined", "Images in quarantine")
        self.build = Info("walkcut_build", "Version, model and method", registry=registry)
        ProcessCollector(registry=registry)

    def set_build_info(self, **parts: str) -> None:
        """Set the build info: walkcut's version and these parts."""
        self.build.info({"version": version("walkcut"), **parts})

    def watch_process(self, name: str, pid: Callable[[], int]) -> None:
        """Measure memory and processor time of another process too, as `walkcut_<name>_process_…`."""
        ProcessCollector(namespace=f"walkcut_{name}", pid=pid, registry=self.registry)

    def count_failure(self, error: Exception) -> None:
        """Count a failure by the name of its class."""
        self.failures.labels(type(error).__name__).inc()

    def record_stage(self, name: str, seconds: float) -> None:
        """Record the seconds of a stage; for `timer`."""
        self.stages.labels(name).observe(seconds)
