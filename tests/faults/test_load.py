"""The short form of the load: a few seconds, for what it checks, not for how long things take."""

from benchmarks.load import Load, run


def test_no_answer_under_load_is_wrong_or_lost() -> None:
    outcome = run(Load(minutes=0.1, annotators=4, warm_up=0, pause=0.5, rest=1, images=2, page=4))
    assert (outcome.record.wrong, outcome.record.lost) == ([], [])
    assert outcome.record.submitted
    assert outcome.record.predicted
    assert outcome.seconds("typed", "pointed").size
