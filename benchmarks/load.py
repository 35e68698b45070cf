"""An hour of a team's work in ten minutes: `python -m benchmarks.load [--minutes 10] [--annotators 20]`.

Annotators open, type, point and submit while predictions of a list of tasks are retrieved, all of it against a
`walkcut serve` of its own. Every answer is compared with the one that was given before the load, some of those with
the cut tree itself; what was acknowledged must be in the store in the end. Exit status 1 where a bound is broken.
"""

import argparse
import io
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from label_studio_sdk.converter import brush
from PIL import Image

from benchmarks.pictures import jpeg, picture_host
from benchmarks.responsiveness import free_port, wait_until_up
from benchmarks.team import ANNOTATED, Client, Record, Team, script, task_of, visit
from walkcut.pipeline import load_segmenter
from walkcut.segmentation.granularity import Level
from walkcut.store import ProjectStore

MOST_P95_S = 1.0  # of annotators' calls while predictions are retrieved
MOST_GROWTH = 1.0  # MB per 1,000 requests
PICTURES = 24  # that annotators work on
PAGE = 30  # tasks of a page of the Data Manager
_SECONDS_PER_STEP = 2.5  # an annotator's pause, a sixth of a real one's
_WARM_UP = 0.4  # of the time: caches fill, and the project gets as many lessons as are read
_PART = 60  # samples, one a second: what is in use for a moment is not growth
_INTERACTIVE = ("typed", "pointed", "boxed")
_LEARNED_S = 120.0


@dataclass(frozen=True)
class Sample:
    """Memory of the backend and its children, by process, after so many answers."""

    answers: int
    megabytes: Mapping[int, float]


@dataclass(frozen=True)
class Outcome:
    """What a load came to. Seconds are of calls; growth is in MB per 1,000 requests after the warm-up."""

    record: Record
    samples: Sequence[Sample]
    minutes: float

    @property
    def growth(self) -> float:
        """Slope of the line of least squares through each process's least memory, by minutes after the warm-up."""
        warm = self.samples[int(_WARM_UP * len(self.samples)) :]
        parts = [warm[at : at + _PART] for at in range(0, len(warm), _PART)]
        least = [
            sum(min(sample.megabytes.get(process, 0.0) for sample in part) for process in part[0].megabytes)
            for part in parts
        ]
        return float(1000 * np.polyfit([part[-1].answers for part in parts], least, 1)[0])

    def seconds(self, *kinds: str) -> np.ndarray:
        """What calls of these kinds took."""
        return np.array([call.seconds for call in self.record.calls if call.kind in kinds])

    @property
    def broken(self) -> list[str]:
        """The bounds that do not hold."""
        p95 = float(np.quantile(self.seconds(*_INTERACTIVE), 0.95))
        bounds = {
            f"{len(self.record.wrong)} wrong": not self.record.wrong,
            f"{len(self.record.lost)} lost": not self.record.lost,
            f"interactive p95 {p95:.2f} s": p95 < MOST_P95_S,
            f"memory grows {self.growth:.2f} MB per 1,000 requests": self.growth < MOST_GROWTH,
        }
        return [bound for bound, holds in bounds.items() if not holds]


def run(minutes: float, annotators: int, pictures: int = PICTURES, page: int = PAGE) -> Outcome:
    """The load against a backend of its own, which is over when this returns."""
    port = free_port()
    url, alone, record = f"http://127.0.0.1:{port}", Record(), Record()
    with tempfile.TemporaryDirectory() as name, picture_host() as host:
        server = _serve(port, Path(name))
        try:
            wait_until_up(url)
            expected = answers_alone(Client(url, alone), host, pictures)
            check_masks(expected, min(pictures, 3))
            team, samples = Team(host, pictures, page, record, expected, threading.Event()), list[Sample]()
            _work(team, Client(url, record), annotators, minutes, server.pid, samples)
            record.lost.extend(_lost(Path(name), [*alone.submitted, *record.submitted]))
        finally:
            server.terminate()
            server.wait()
    return Outcome(record, samples, minutes)


def _serve(port: int, state: Path) -> "subprocess.Popen[bytes]":
    environment = {
        "WALKCUT_STATE_DIR": str(state),
        "WALKCUT_LOG_LEVEL": "WARNING",
        "WALKCUT_ALLOW_PRIVATE_HOSTS": "true",
    }
    return subprocess.Popen([sys.executable, "-m", "walkcut", "serve", "--port", str(port)], env=environment)


def answers_alone(client: Client, host: str, pictures: int) -> dict[str, Any]:
    """The answers to all questions when nobody else asks."""
    expected: dict[str, Any] = {}
    for picture in range(pictures):
        answers = dict(visit(client, task_of(picture + 1, host, picture), picture, lambda: None))
        if len(answers) < 1 + len(script(picture)):
            raise RuntimeError(
                f"answers for picture {picture} are missing before the load has begun: see the log above"
            )
        expected.update(answers)
    return expected


def check_masks(expected: Mapping[str, Any], pictures: int) -> None:
    """Compare some answers with the cut tree itself, decoded as Label Studio decodes them."""
    segmenter = load_segmenter("embedded")
    for picture in range(pictures):
        image = np.asarray(Image.open(io.BytesIO(jpeg(picture))).convert("RGB"))
        labels = segmenter.tree(image).labels(Level.FINE)
        for _, rle in expected[f"{picture} open"]["fine"]:
            alpha = np.asarray(brush.decode_rle([int(code) for code in rle.strip("[]").split(",")]))[3::4]
            mask = alpha.reshape(labels.shape) > 0
            if not np.array_equal(mask, labels == labels[mask][0]):
                raise RuntimeError(f"a mask of picture {picture} is none of its segments")


def _work(team: Team, client: Client, annotators: int, minutes: float, pid: int, samples: list[Sample]) -> None:
    """All at work for some minutes, while memory is measured."""
    with ThreadPoolExecutor(annotators + 2) as pool:
        workers = [pool.submit(team.annotate, client, who, _SECONDS_PER_STEP) for who in range(annotators)]
        workers += [pool.submit(team.retrieve, client), pool.submit(_scrape, client, team.stop)]
        try:
            end = time.monotonic() + 60 * minutes
            while time.monotonic() < end:
                samples.append(Sample(len(team.record.calls), resident_mb(pid)))
                time.sleep(1)
        finally:
            team.stop.set()
    for worker in workers:
        worker.result()  # raises what went wrong in it


def _scrape(client: Client, stop: threading.Event) -> None:
    """What monitoring asks."""
    for turn in itertools.count():
        client.ask("health", "/health")
        if turn % 5 == 0:
            client.ask("metrics", "/metrics")
        if stop.wait(1):
            return


def resident_mb(pid: int) -> dict[int, float]:
    """Memory of a process and its children, in MB; without those that have ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        children = " ".join(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))
    except (FileNotFoundError, ProcessLookupError):
        return {}
    found = {pid: next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0.0)}
    for child in children.split():
        found |= resident_mb(int(child))
    return found


def _lost(state: Path, submitted: Sequence[int]) -> list[str]:
    """What was acknowledged and is not in the store, or was not learned from in time."""
    store, end = ProjectStore(state), time.monotonic() + _LEARNED_S
    try:
        while True:
            learned = {each.annotation for each in store.taught(ANNOTATED)}
            missing = sorted(set(submitted) - learned)
            if not missing or time.monotonic() > end:
                break
            time.sleep(1)
        events = len(store.events(ANNOTATED))
    finally:
        store.close()
    lost = [f"nothing learned from annotation {number}" for number in missing]
    return lost + [f"event {number} is not in the store" for number in range(events, len(submitted))]


def _print(outcome: Outcome) -> None:
    """What there is to know."""
    record, calls = outcome.record, len(outcome.record.calls)
    print(f"{calls} requests in {outcome.minutes:g} minutes, {calls / outcome.minutes / 60:.1f} a second")
    for kinds in (_INTERACTIVE, *((kind,) for kind in (*_INTERACTIVE, "open", "batch", "webhook", "setup", "health"))):
        seconds = outcome.seconds(*kinds)
        if len(seconds):
            quantiles = ", ".join(f"p{q} {1e3 * np.quantile(seconds, q / 100):.0f}" for q in (50, 95, 99, 100))
            print(f"{' + '.join(kinds)}: {len(seconds)} calls, {quantiles} ms")
    print(f"{len(record.predicted)} batch tasks predicted; handed back for want of time: {dict(record.handed_back)}")
    print(f"{len(record.submitted)} annotations submitted and learned from")
    most = max(sum(sample.megabytes.values()) for sample in outcome.samples)
    print(f"memory: {outcome.growth:.2f} MB per 1,000 requests, at most {most:.0f} MB")
    print(f"{len(record.wrong)} wrong, {len(record.lost)} lost")
    for line in (*record.wrong[:5], *record.lost[:5]):
        print(f"  {line}")


def main() -> None:
    """Print what the load came to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--annotators", type=int, default=20)
    arguments = parser.parse_args()
    print(f"load average before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    outcome = run(arguments.minutes, arguments.annotators)
    _print(outcome)
    if outcome.broken:
        sys.exit(f"broken: {', '.join(outcome.broken)}")


if __name__ == "__main__":
    main()
