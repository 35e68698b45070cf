"""Hosts of images that are slow, half-open or gone cost their own images and nobody else's."""

from concurrent.futures import ThreadPoolExecutor

from tests.builders.processes import free_port, wait_for
from tests.faults.backend import IMAGE, PATIENCE_S, Backend
from tests.faults.hosts import Answer, dripping, good, half, hosting, reset, silent

BAD: dict[str, Answer] = {"/silent": silent, "/dripping": dripping, "/half": half, "/reset": reset}


def test_bad_hosts_cost_their_own_images_alone(backend: Backend) -> None:
    begin = len(backend.log)
    with hosting({**BAD, "/good": good}) as host:
        gone = f"http://127.0.0.1:{free_port()}/gone.png"
        bad = [gone, *(f"{host.url}{path}.png" for path in BAD)]
        first, last = f"{host.url}/good1.png", f"{host.url}/good2.png"
        assert all(backend.predict(first, last))
        results = backend.predict(first, *bad, last)
    assert list(map(bool, results)) == [True, *[False] * len(bad), True]
    backend.says("task 2 was not answered", "cannot be reached", after=begin)
    backend.says(
        "task 3 was not answered", "took longer than", "task 6 was not answered", "closed the connection", after=begin
    )


def test_annotators_do_not_wait_for_hosts_that_others_wait_for(backend: Backend) -> None:
    with hosting(BAD) as host, ThreadPoolExecutor(4) as pool:
        batches = [
            pool.submit(backend.predict, *(f"{host.url}/silent{number}.png" for number in range(30))) for _ in range(4)
        ]
        wait_for("all batches to hang", lambda: len(host.asked) >= 4, PATIENCE_S)
        ((status, *_), *_) = [answer["result"] for answer in backend.predict(IMAGE, line="3")]
        assert status["type"] == "brushlabels"
        assert not any(batch.done() for batch in batches), "the annotator was answered while all others waited"
        host.release.set()
        assert all(batch.result() == [[]] * 30 for batch in batches)


def test_a_batch_of_slow_images_is_answered_before_label_studio_gives_up(backend: Backend) -> None:
    begin = len(backend.log)
    with hosting(BAD) as host:
        assert backend.predict(*(f"{host.url}/dripping{number}.png" for number in range(30))) == [[]] * 30
        assert 0 < len(host.asked) < 30
    backend.says("task 30 timed out: Label Studio asks for it again", after=begin)
