from prometheus_client import generate_latest

from walkcut.telemetry.metrics import Metrics
from walkcut.telemetry.spans import record_spans, span, timer


def test_stages_and_failures_are_counted_by_name() -> None:
    metrics = Metrics()
    with record_spans(timer(metrics.record_stage)):
        for _ in range(2):
            with span("cut"):
                pass
    metrics.count_failure(ValueError("no"))
    text = generate_latest(metrics.registry).decode()
    assert 'walkcut_stage_seconds_count{stage="cut"} 2.0' in text
    assert 'walkcut_failures_total{reason="ValueError"} 1.0' in text


def test_the_build_info_names_the_version_and_the_parts() -> None:
    metrics = Metrics()
    metrics.set_build_info(model="classical")
    assert 'walkcut_build_info{model="classical",version="' in generate_latest(metrics.registry).decode()
