"""The short form of the load: a few seconds, for what it checks, not for how long things take."""

from benchmarks import load


def test_no_answer_under_load_is_wrong_or_lost() -> None:
    outcome = load.run(0.1, 4, pictures=2, page=4)
    assert (outcome.record.wrong, outcome.record.lost) == ([], [])
    assert outcome.record.submitted
    assert outcome.record.predicted
    assert outcome.seconds("typed", "pointed").size
