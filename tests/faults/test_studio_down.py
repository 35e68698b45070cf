"""Label Studio is away, at the start and at work: it is told, nothing is lost, and all is made up for."""

import time
from pathlib import Path

from tests.builders.processes import free_port, wait_for
from tests.faults.backend import IMAGE, running, submitted
from tests.faults.hosts import dripping, hosting, label_studio

TOKEN = "0123456789abcdef0123456789abcdef01234567"
IMAGE_THERE = "/data/upload/1/1.png"


def test_label_studio_comes_goes_and_comes_back(folder: Path) -> None:
    port = free_port()
    (annotation,) = [submitted(5, IMAGE_THERE, size=(30, 41))["annotation"]]
    studio = label_studio([annotation])
    with running(
        folder,
        LABEL_STUDIO_URL=f"http://127.0.0.1:{port}",
        LABEL_STUDIO_API_KEY=TOKEN,
        WALKCUT_SYNC_INTERVAL="2",
    ) as backend:
        backend.says(f"Label Studio at http://127.0.0.1:{port} cannot be reached", "could not be synced")
        assert backend.predict(IMAGE, IMAGE_THERE)[1] == []
        with hosting(studio, port) as host:
            backend.learns(5)
            assert backend.predict(IMAGE_THERE)[0]
        begin = len(backend.log)
        assert backend.submit(6, IMAGE_THERE, size=(30, 41)).ok, "while it is away again"
        backend.says("annotation 6 in project 7 is set aside, and tried again in 2 s", after=begin)
        assert backend.predict(IMAGE)[0], "images from elsewhere come"
        studio["/api/tasks/1/annotations"] = label_studio([annotation, submitted(6, size=(30, 41))["annotation"]])[
            "/api/tasks/1/annotations"
        ]
        with hosting(studio, port) as host:
            backend.learns(5, 6)
            assert host.asked
        assert "Traceback" not in backend.log
        assert TOKEN not in backend.log


def test_an_answer_that_drips_holds_neither_learning_nor_the_end(folder: Path) -> None:
    studio = label_studio([]) | {"/api/tasks": dripping}
    with hosting(studio) as host:
        environment = {"LABEL_STUDIO_URL": host.url, "LABEL_STUDIO_API_KEY": TOKEN}
        with running(folder, **environment) as backend:
            wait_for("the sync", lambda: "/api/tasks/" in host.asked, 30)
            assert backend.submit(5).ok
            backend.learns(5)
            assert backend.process is not None
            begin = time.monotonic()
            backend.process.terminate()
            backend.process.wait(10)
            assert time.monotonic() - begin < 5
        assert "Traceback" not in backend.log
