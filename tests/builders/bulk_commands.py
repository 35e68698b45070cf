"""`walkcut` commands of bulk runs, in this process or in one that is killed."""

import subprocess
import sys
import time
from pathlib import Path

from click.testing import CliRunner, Result

from tests.builders.bulk import done_lines
from walkcut.cli import main

TIMEOUT_S = 120.0


def walkcut(*arguments: object) -> Result:
    """Run a command in this process."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def start_walkcut(*arguments: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "walkcut", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def wait_for_lines(run_dir: Path, count: int) -> None:
    """Wait until a run has finished this many images."""
    deadline = time.monotonic() + TIMEOUT_S
    while len(done_lines(run_dir)) < count:
        assert time.monotonic() < deadline, f"fewer than {count} images are done"
        time.sleep(0.005)


def end_with(process: subprocess.Popen[bytes], signal_number: int) -> tuple[int, str]:
    """Send a signal to a process; return its exit status and its standard error."""
    process.send_signal(signal_number)
    _, stderr = process.communicate(timeout=TIMEOUT_S)
    return process.returncode, stderr.decode()
