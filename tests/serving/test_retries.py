import pytest

from walkcut.serving.retries import RetrySchedule


def test_pauses_grow_up_to_ten_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    now, retries, pauses = [0.0], RetrySchedule(), []
    monkeypatch.setattr("walkcut.serving.retries.time.monotonic", lambda: now[0])
    assert retries.is_due(7)
    for attempt in range(1, 13):
        assert retries.postpone(7) == attempt
        begin = now[0]
        while not retries.is_due(7):
            now[0] += 1
        pauses.append(now[0] - begin)
    assert pauses == [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]


def test_a_discarded_event_waits_no_longer() -> None:
    retries = RetrySchedule()
    retries.postpone(7)
    assert (retries.event_ids(), retries.is_due(7)) == ([7], False)
    retries.discard(7)
    assert (retries.event_ids(), retries.is_due(7)) == ([], True)
