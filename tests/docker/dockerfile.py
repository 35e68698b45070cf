"""Reading a Dockerfile, and doing in a plain folder what it does in an image."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import requests

from tests.builders.processes import STOP_S, free_port, is_up, wait_for

_CONFINED = """
set -e
for folder in "$STATE" "$TMP"; do mount --bind "$folder" "$folder"; done
mount -o remount,bind,ro /
exec unshare --user --map-user="$ID" --map-group="$ID" setpriv --no-new-privs "$@"
"""


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile."""

    name: str
    argument: str


@dataclass(frozen=True)
class Run:
    """What became of the image's command: its answers while it ran, and how it ended."""

    health_status: int
    metrics: str
    exit_status: int
    health_status_afterwards: int
    log: str


def read_stages(file: Path) -> list[list[Instruction]]:
    """The instructions of each stage; those before the first stage come first."""
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    stages: list[list[Instruction]] = [[]]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, argument = line.strip().partition(" ")
        if name == "FROM":
            stages.append([])
        if name:
            stages[-1].append(Instruction(name, argument.strip()))
    return stages


def arguments_of(stage: Sequence[Instruction], name: str) -> list[str]:
    """What all instructions of this name say."""
    return [instruction.argument for instruction in stage if instruction.name == name]


def exec_form(argument: str) -> list[str]:
    """The words of a command that no shell sees."""
    words = json.loads(argument[argument.index("[") :])
    return [str(word) for word in words]


def environment_of(stage: Sequence[Instruction]) -> dict[str, str]:
    """The variables that a stage sets."""
    pairs = [word for argument in arguments_of(stage, "ENV") for word in shlex.split(argument)]
    return dict(pair.split("=", 1) for pair in pairs)


def build_wheel(stage: Sequence[Instruction], repository: Path, folder: Path) -> Path:
    """Do what the first stage does, with nothing but what it copies; the wheel."""
    source = folder / "source"
    source.mkdir()
    for argument in arguments_of(stage, "COPY"):
        *names, _ = argument.split()
        for name in names:
            copy = shutil.copytree if (repository / name).is_dir() else shutil.copy
            copy(repository / name, source / name)
    (command,) = arguments_of(stage, "RUN")
    subprocess.run(command.replace("/wheels", str(folder)), shell=True, check=True, cwd=source, env=_host_environment())
    (wheel,) = folder.glob("*.whl")
    return wheel


def install(wheel: Path, environment: Path) -> None:
    """Put the wheel alone into a new virtual environment, as the second stage does with all that it needs."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(environment)]
    subprocess.run([*pip, "install", "--quiet", "--no-deps", wheel], check=True)


def run_command(stage: Sequence[Instruction], folder: Path) -> Run:
    """Run the command of the last stage as its user, health check included; the wheel is installed in folder/opt.

    Root confines it as the image is: that user's id, no capabilities, and all read-only but the state and /tmp.
    """
    places = {"/opt/walkcut": folder / "opt", "/var/lib/walkcut": folder / "state", "/weights": folder / "weights"}
    places["/tmp"] = folder / "tmp"
    for place in places.values():
        place.mkdir(exist_ok=True)
    anywhere = re.compile("|".join(places))
    environment = {
        name: anywhere.sub(lambda found: str(places[found[0]]), value) for name, value in environment_of(stage).items()
    }
    environment["PATH"] = environment["PATH"].replace("$PATH", os.environ["PATH"])
    environment |= {"WALKCUT_HOST": "127.0.0.1", "WALKCUT_PORT": str(free_port())}
    environment |= {"TMPDIR": environment["HOME"], "PYTHONPATH": sysconfig.get_path("purelib")}
    (user,) = arguments_of(stage, "USER")
    confinement = {"STATE": str(places["/var/lib/walkcut"]), "TMP": str(places["/tmp"]), "ID": user.partition(":")[0]}
    (command,), (health_check,) = arguments_of(stage, "CMD"), arguments_of(stage, "HEALTHCHECK")
    prefix = ["unshare", "--mount", "sh", "-c", _CONFINED, "sh"] if os.geteuid() == 0 else []
    return _run([*prefix, *exec_form(command)], exec_form(health_check), environment, confinement, folder / "log")


def _run(
    command: Sequence[str],
    health_check: Sequence[str],
    environment: Mapping[str, str],
    confinement: Mapping[str, str],
    log: Path,
) -> Run:
    url = f"http://127.0.0.1:{environment['WALKCUT_PORT']}"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env={**environment, **confinement}, stdout=output, stderr=subprocess.STDOUT, cwd="/"
        )

    def ready() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{command} ended:\n{log.read_text(encoding='utf-8')[-3000:]}")
        return is_up(url)

    try:
        wait_for(f"{url}/health", ready, 60.0)
        health_status = subprocess.run(health_check, env=environment, check=False).returncode
        metrics = requests.get(f"{url}/metrics", timeout=5).text
        process.terminate()
        exit_status = process.wait(STOP_S)
    finally:
        process.kill()
        process.wait()
    afterwards = subprocess.run(health_check, env=environment, check=False, stderr=subprocess.DEVNULL).returncode
    return Run(health_status, metrics, exit_status, afterwards, log.read_text(encoding="utf-8"))


def _host_environment() -> dict[str, str]:
    """This process's environment, with the programs of its own virtual environment first."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
