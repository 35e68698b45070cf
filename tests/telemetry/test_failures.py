from walkcut.telemetry.failures import count_failures, record_failure


def test_a_counter_sees_failures_until_it_is_removed() -> None:
    seen: list[Exception] = []
    failure = ValueError("no")
    with count_failures(seen.append):
        record_failure(failure)
    record_failure(failure)
    assert seen == [failure]
