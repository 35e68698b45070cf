"""Waiting time of 20 annotators who ask at once: `python -m benchmarks.annotators`."""

import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import numpy as np
import requests

from benchmarks.responsiveness import CONFIG, free_port, make_image, wait_until_up

ANNOTATORS, IMAGES, ROUNDS = 20, 4, 3
ALONE = 1000  # number of the task of whoever works alone on an image

Answer = list[tuple[Any, ...]]


def typed(*lines: str) -> dict[str, Any]:
    """Return the context of typed lines."""
    item = {"type": "textarea", "from_name": "granularity", "to_name": "image", "value": {"text": list(lines)}}
    return {"result": [item]}


def click(label: str, number: int, x: float, y: float) -> dict[str, Any]:
    """Return the context of a click at a position in per cent."""
    value = {"x": x, "y": y, "width": 0.2, "keypointlabels": [label]}
    item = {"id": f"p{number}", "type": "keypointlabels", "from_name": "point", "to_name": "image", "value": value}
    return {"result": [item]}


CONTEXTS = (
    typed("12"),
    typed("12", "finer"),
    typed("12", "finer", "tau=0.4"),
    click("Select", 1, 30, 60),
    click("Finer", 2, 30, 60),
    click("Coarser", 3, 80, 20),
)


def ask(url: str, task: int, reference: str, context: dict[str, Any]) -> tuple[float, Answer]:
    """Return the seconds until an answer, and its labels and masks without ids, which differ between tasks."""
    body = {
        "tasks": [{"id": task, "data": {"image": reference}}],
        "project": "1.0",
        "label_config": CONFIG,
        "params": {"context": context},
    }
    begin = time.perf_counter()
    answer = requests.post(f"{url}/predict", json=body, timeout=100)
    seconds = time.perf_counter() - begin
    answer.raise_for_status()
    items = answer.json()["results"][0]["result"]
    return seconds, [(item["type"], item.get("dynamic"), str(item["value"])) for item in items]


def work(url: str, task: int, reference: str, start: Barrier | None = None) -> list[tuple[float, Answer]]:
    """Make an annotator's calls, the first one together with all others."""
    if start is not None:
        start.wait()
    return [ask(url, task, reference, context) for context in CONTEXTS]


def main() -> None:
    """Print the waiting times and the number of wrong answers."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-m", "walkcut", "serve", "--port", str(port)]
        server = subprocess.Popen(
            command, env={"WALKCUT_MODEL": "classical", "WALKCUT_STATE_DIR": state, "WALKCUT_LOG_LEVEL": "WARNING"}
        )
        try:
            wait_until_up(url)
            references = [make_image(number) for number in range(IMAGES)]
            for reference in references:  # so that the trees are there
                ask(url, 0, reference, CONTEXTS[0])
            alone = [work(url, ALONE + number, reference) for number, reference in enumerate(references)]
            crowd = [answers for round_ in range(ROUNDS) for answers in _crowd(url, references, round_)]
        finally:
            server.terminate()
            server.wait()
    wrong = sum(
        answer != expected
        for who, answers in enumerate(crowd)
        for (_, answer), (_, expected) in zip(answers, alone[who % ANNOTATORS % IMAGES], strict=True)
    )
    waits = np.array([seconds for answers in crowd for seconds, _ in answers])
    by_himself = np.array([seconds for answers in alone for seconds, _ in answers])
    print(f"alone: median {1e3 * np.median(by_himself):.0f} ms of {len(by_himself)} calls")
    middle, most, longest = 1e3 * np.quantile(waits, (0.5, 0.95, 1))
    print(
        f"{ANNOTATORS} at once: median {middle:.0f} ms, 95th percentile {most:.0f} ms, longest {longest:.0f} ms of "
        f"{len(waits)} calls; {wrong} wrong"
    )


def _crowd(url: str, references: list[str], round_: int) -> list[list[tuple[float, Answer]]]:
    """Return the answers of all annotators."""
    start = Barrier(ANNOTATORS)
    with ThreadPoolExecutor(ANNOTATORS) as crowd:
        callers = [
            crowd.submit(work, url, 1 + round_ * ANNOTATORS + who, references[who % IMAGES], start)
            for who in range(ANNOTATORS)
        ]
        return [caller.result() for caller in callers]


if __name__ == "__main__":
    main()
