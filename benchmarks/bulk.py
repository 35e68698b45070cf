"""What `walkcut prelabel` gains over `walkcut segment` on one core, and what its bookkeeping costs.

`python -m benchmarks.bulk FOLDER [IMAGES]`, with a folder of images that are taken again and again until there are
200 by default. Both commands start from nothing and write label PNGs.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import cycle, islice
from pathlib import Path

import torch

from walkcut.cli import main as walkcut

INNER = "--inner"


def link(folder: Path, count: int, links: Path) -> list[Path]:
    """Link `count` names to a folder's images, in turn."""
    images = sorted(path.resolve() for path in folder.glob("*.jpg"))
    links.mkdir()
    made = [links / f"{number:05d}{path.suffix}" for number, path in enumerate(islice(cycle(images), count))]
    for path, image in zip(made, cycle(images)):
        path.symlink_to(image)
    return made


def seconds(command: Sequence[object], cores: set[int]) -> tuple[float, str]:
    """Return the seconds that a command takes on these cores, and its output."""
    begin = time.perf_counter()
    arguments = [sys.executable, "-m", *map(str, command)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        os.sched_setaffinity(process.pid, cores)
        printed = process.communicate()[0]
    if process.returncode:
        raise SystemExit(process.returncode)
    return time.perf_counter() - begin, printed


def run_inside(arguments: Sequence[str]) -> None:
    """Run `walkcut` in this process with one PyTorch thread, and print its processor time."""
    torch.set_num_threads(1)
    begin = time.process_time()
    with suppress(SystemExit):
        walkcut(list(arguments), standalone_mode=False)
    print(f"processor {time.process_time() - begin}")


def main() -> None:
    """Print the speed-up and the cost of bookkeeping."""
    if sys.argv[1] == INNER:
        run_inside(sys.argv[2:])
        return
    folder, count = Path(sys.argv[1]), int([*sys.argv, "200"][2])
    cores = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as name:
        temporary_dir = Path(name)
        images = link(folder, count, temporary_dir / "images")
        segment = ["segment", *images, "--out", temporary_dir / "one"]
        # Twice the same image has one tree: with trees kept, it would be grown once.
        bulk = ["prelabel", temporary_dir / "images", "--format", "png", "--no-trees", "--out", temporary_dir / "all"]
        loop, one = seconds(["benchmarks.bulk", INNER, *segment], {min(cores)})
        elapsed, all_cores = seconds(["benchmarks.bulk", INNER, *bulk], cores)
    work, bookkeeping = (float(printed.split("processor ")[1]) for printed in (one, all_cores))
    print(f"walkcut segment, {count} images on one core: {loop:.1f} s, {count / loop:.2f} images/s")
    print(f"walkcut prelabel on {len(cores)} cores: {elapsed:.1f} s, {count / elapsed:.2f} images/s")
    print(f"ratio {loop / elapsed:.2f}; the load before and meanwhile was {os.getloadavg()[0]:.1f}")
    print(f"bookkeeping: {bookkeeping:.2f} s of processor time, {bookkeeping / work:.1%} of that of walkcut segment")


if __name__ == "__main__":
    main()
