"""An hour of a team's work in ten minutes: `python -m benchmarks.load [--minutes 10] [--annotators 20]`."""

import argparse
import io
import itertools
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from label_studio_sdk.converter import brush
from PIL import Image

from benchmarks.processes import descendants
from benchmarks.responsiveness import free_port, wait_until_up
from benchmarks.scenes import image_host, jpeg
from benchmarks.team import ANNOTATED, Client, Gate, Record, Team, script, task_of, visit
from walkcut.hierarchy.granularity import parse_granularity
from walkcut.segmentation.segmenter import load_segmenter
from walkcut.storage import ProjectStore

MAX_P95_S = 1.0  # of annotators' calls while predictions are retrieved
MAX_GROWTH = 1.0  # MB per 1,000 requests
_INTERACTIVE = ("typed", "pointed", "boxed")
_LEARNED_S = 120.0


@dataclass(frozen=True)
class Load:
    """Settings of a load: annotators on `images` images, and one client that retrieves predictions page by page.

    `minutes` and `warm_up` are in minutes; caches fill during the warm-up, and the project gets as much feedback as is
    used. `pause` (of an annotator, a sixth of a real one) and `rest` are in seconds; during a rest the backend learns
    and returns freed memory to the system.
    """

    minutes: float = 10.0
    annotators: int = 20
    warm_up: float = 5.0
    pause: float = 2.5
    rest: float = 30.0
    images: int = 24
    page: int = 30


@dataclass(frozen=True)
class Rest:
    """Memory of the backend and its children in MB, at rest after a number of answers."""

    answers: int
    megabytes: float


@dataclass(frozen=True)
class Outcome:
    """Result of a load: the rests after the warm-up and at the end, and the peak memory in MB."""

    record: Record
    rests: tuple[Rest, Rest]
    most_megabytes: float

    @property
    def growth(self) -> float:
        """Growth of memory after the warm-up, in MB per 1,000 requests."""
        warm, end = self.rests
        return 1000 * (end.megabytes - warm.megabytes) / (end.answers - warm.answers)

    def seconds(self, *kinds: str) -> np.ndarray:
        """Return the seconds that calls of these kinds took."""
        return np.array([call.seconds for call in self.record.calls if call.kind in kinds])

    @property
    def broken(self) -> list[str]:
        """The bounds that do not hold."""
        p95 = float(np.quantile(self.seconds(*_INTERACTIVE), 0.95))
        bounds = {
            f"{len(self.record.wrong)} wrong": not self.record.wrong,
            f"{len(self.record.lost)} lost": not self.record.lost,
            f"interactive p95 {p95:.2f} s": p95 < MAX_P95_S,
            f"memory grows {self.growth:.2f} MB per 1,000 requests": self.growth < MAX_GROWTH,
        }
        return [bound for bound, holds in bounds.items() if not holds]


def run(load: Load) -> Outcome:
    """Run a load against a backend started for it."""
    port = free_port()
    url, alone, record = f"http://127.0.0.1:{port}", Record(), Record()
    with tempfile.TemporaryDirectory() as name, image_host() as host:
        server = _serve(port, Path(name))
        try:
            wait_until_up(url)
            expected = answers_alone(Client(url, alone), host, load.images)
            check_masks(expected, min(load.images, 3))
            team = Team(host, load.images, load.page, record, expected, Gate(), threading.Event())
            with _at_work(team, Client(url, record), load):
                warm, most_before = _memory(team, server.pid, load.warm_up, load.rest)
                end, most = _memory(team, server.pid, load.minutes, load.rest)
            record.lost.extend(_lost(Path(name), [*alone.submitted, *record.submitted]))
        finally:
            server.terminate()
            server.wait()
    return Outcome(record, (warm, end), max(most_before, most))


def _serve(port: int, state: Path) -> "subprocess.Popen[bytes]":
    environment = {
        "WALKCUT_MODEL": "classical",
        "WALKCUT_STATE_DIR": str(state),
        "WALKCUT_LOG_LEVEL": "WARNING",
        "WALKCUT_ALLOW_PRIVATE_HOSTS": "true",
    }
    return subprocess.Popen([sys.executable, "-m", "walkcut", "serve", "--port", str(port)], env=environment)


def answers_alone(client: Client, host: str, images: int) -> dict[str, Any]:
    """Return the answers to all questions when nobody else asks."""
    expected: dict[str, Any] = {}
    for image in range(images):
        answers = dict(visit(client, task_of(image + 1, host, image), image, lambda: None))
        if len(answers) < 1 + len(script(image)):
            raise RuntimeError(f"answers for image {image} are missing before the load has begun: see the log above")
        expected.update(answers)
    return expected


def check_masks(expected: Mapping[str, Any], images: int) -> None:
    """Compare some answers with the cut tree itself, decoded as Label Studio decodes them."""
    segmenter = load_segmenter("classical")
    for index in range(images):
        pixels = np.asarray(Image.open(io.BytesIO(jpeg(index))).convert("RGB"))
        tree = segmenter.segment(pixels)
        for level, regions in expected[f"{index} open"].items():
            labels = tree.labels(parse_granularity(level))
            for rle in regions:
                alpha = np.asarray(brush.decode_rle([int(code) for code in rle.strip("[]").split(",")]))[3::4]
                mask = alpha.reshape(labels.shape) > 0
                if not np.array_equal(mask, labels == labels[mask][0]):
                    raise RuntimeError(f"a mask of image {index} is none of its segments at {level}")


@contextmanager
def _at_work(team: Team, client: Client, load: Load) -> Iterator[None]:
    """Run the whole team."""
    with ThreadPoolExecutor(load.annotators + 2) as pool:
        workers = [pool.submit(team.annotate, client, who, load.pause) for who in range(load.annotators)]
        workers += [pool.submit(team.retrieve, client), pool.submit(_scrape, client, team.stop)]
        try:
            yield
        finally:
            team.stop.set()
    for worker in workers:
        worker.result()  # raises what went wrong in it


def _memory(team: Team, pid: int, minutes: float, rest: float) -> tuple[Rest, float]:
    """Return the memory at rest after some minutes of work, and the peak during the work."""
    most = max(_sampled(pid, 60 * minutes))
    with team.gate.shut():
        return Rest(len(team.record.calls), min(_sampled(pid, rest))), most


def _sampled(pid: int, seconds: float) -> list[float]:
    """Return the memory of a process and its descendants, once a second."""
    samples, end = list[float](), time.monotonic() + seconds
    while not samples or time.monotonic() < end:
        samples.append(sum(map(resident_mb, [pid, *descendants(pid)])))
        time.sleep(1)
    return samples


def _scrape(client: Client, stop: threading.Event) -> None:
    """Ask what monitoring asks."""
    for turn in itertools.count():
        client.ask("health", "/health")
        if turn % 5 == 0:
            client.ask("metrics", "/metrics")
        if stop.wait(1):
            return


def resident_mb(pid: int) -> float:
    """Return the memory of a process in MB; 0 when it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0.0)


def _lost(state: Path, submitted: Sequence[int]) -> list[str]:
    """Return what was acknowledged but is not in the store, or was not learned from in time."""
    store, end = ProjectStore(state), time.monotonic() + _LEARNED_S
    try:
        while True:
            learned = {feedback["annotation_id"] for feedback, _ in store.annotations.all_feedback(ANNOTATED)}
            missing = sorted(set(submitted) - learned)
            if not missing or time.monotonic() > end:
                break
            time.sleep(1)
    finally:
        store.close()
    return [f"nothing learned from annotation {number}" for number in missing]


def _print(outcome: Outcome) -> None:
    """Print the outcome."""
    record = outcome.record
    print(f"{len(record.calls)} requests")
    for kinds in (_INTERACTIVE, *((kind,) for kind in (*_INTERACTIVE, "open", "batch", "webhook", "setup", "health"))):
        seconds = outcome.seconds(*kinds)
        if len(seconds):
            quantiles = ", ".join(f"p{q} {1e3 * np.quantile(seconds, q / 100):.0f}" for q in (50, 95, 99, 100))
            print(f"{' + '.join(kinds)}: {len(seconds)} calls, {quantiles} ms")
    print(f"{len(record.predicted)} batch tasks predicted; handed back for want of time: {dict(record.handed_back)}")
    print(f"{len(record.submitted)} annotations submitted and learned from")
    rests = " and ".join(f"{rest.megabytes:.1f} MB after {rest.answers}" for rest in outcome.rests)
    print(f"memory at rest: {rests}, {outcome.growth:.2f} MB per 1,000; at most {outcome.most_megabytes:.0f} MB")
    print(f"{len(record.wrong)} wrong, {len(record.lost)} lost")
    for line in (*record.wrong[:5], *record.lost[:5]):
        print(f"  {line}")


def main() -> None:
    """Run the load and print its outcome."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=Load.minutes, help="after the warm-up")
    parser.add_argument("--annotators", type=int, default=Load.annotators)
    arguments = parser.parse_args()
    print(f"load average before: {os.getloadavg()[0]:.2f} on {os.cpu_count()} cores")
    outcome = run(Load(arguments.minutes, arguments.annotators))
    _print(outcome)
    if outcome.broken:
        sys.exit(f"broken: {', '.join(outcome.broken)}")


if __name__ == "__main__":
    main()
