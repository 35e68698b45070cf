"""Long trials: servers and models that are killed again and again, and two servers on one state folder."""

import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import connect

import pytest

from tests.builders.processes import wait_for
from tests.builders.scenes import data_url
from tests.faults.backend import PATIENCE_S, Backend, kill_model, make_image, running, submitting

pytestmark = pytest.mark.soak

KILLS = 20
REFERENCES = [data_url(make_image(number)) for number in range(6)]


def _is_sound(backend: Backend) -> bool:
    with closing(connect(backend.state / "walkcut.sqlite3")) as database:
        return database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_twenty_kills_of_the_server_lose_nothing(folder: Path) -> None:
    chance = random.Random(1)
    with running(folder) as backend:
        expected = backend.predict(*REFERENCES)
        with submitting(backend) as acknowledged:
            for _ in range(KILLS):
                time.sleep(chance.uniform(0, 2))
                backend.kill()
                backend.start()
        backend.learns(*acknowledged)
        assert len(acknowledged) >= KILLS
        assert "Traceback" not in backend.log
        assert [len(result) for result in backend.predict(*REFERENCES)] == [len(result) for result in expected]
        assert _is_sound(backend)


@contextmanager
def second_server(folder: Path, first: Backend) -> Iterator[Backend]:
    """A server on the state folder of another."""
    folder.mkdir()
    with running(folder, WALKCUT_STATE_DIR=str(first.state)) as backend:
        yield backend


def test_two_servers_on_one_state_folder_learn_everything_once(folder: Path) -> None:
    with running(folder) as first, second_server(folder / "second", first) as second:
        with submitting(first) as by_first, submitting(second, 10_000) as by_second:
            for number in range(60):
                chosen = (first, second)[number % 2]
                chosen.predict(data_url(make_image(number)))
        first.learns(*by_first, *by_second)
        # A profile whose fit takes long on a busy machine is not fitted again at once.
        wait_for("equal predictions", lambda: first.predict(*REFERENCES) == second.predict(*REFERENCES), PATIENCE_S)
        for backend in (first, second):
            assert "Traceback" not in backend.log
            assert "set aside" not in backend.log.replace("0 annotations are set aside", "")
        assert _is_sound(first)


def test_a_model_that_is_killed_again_and_again_serves_all_images_in_the_end(folder: Path) -> None:
    chance = random.Random(2)
    with running(folder) as backend, ThreadPoolExecutor(1) as pool:
        for number in range(KILLS):
            batch = pool.submit(backend.predict, *[data_url(make_image(100 * number + n)) for n in range(6)])
            time.sleep(chance.uniform(0, 0.3))
            kill_model(backend)
            assert len(batch.result()) == 6
        wait_for("the model", lambda: all(backend.predict(*REFERENCES)), PATIENCE_S)
        shutil.rmtree(backend.state / "quarantine", ignore_errors=True)  # images that met two kills, as the log says
        every = [data_url(make_image(100 * number + n)) for number in range(KILLS) for n in range(6)]
        wait_for("all images", lambda: all(backend.predict(*every)), PATIENCE_S)
        assert "Traceback" not in backend.log
