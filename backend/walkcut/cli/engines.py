"""What carries out `walkcut prelabel`: the processes of this machine, or those of a Ray cluster."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from walkcut.backbones import CLASSICAL
from walkcut.bulk.engines.local import model_per_process, shared_model
from walkcut.bulk.runner import Engine
from walkcut.bulk.steps import Plan
from walkcut.cli.bulk import cores
from walkcut.errors import SettingsError
from walkcut.inference.factory import make_segmenter
from walkcut.segmentation.segmenter import Segmenter
from walkcut.settings import Settings

LOCAL, RAY = "local", "ray"

engine_option = click.option(
    "--engine",
    type=click.Choice((LOCAL, RAY)),
    default=LOCAL,
    show_default=True,
    help="Processes of this machine, or of the Ray cluster at RAY_ADDRESS, or else of one that is started here.",
)
cpus_option = click.option(
    "--cpus-per-worker",
    "cpus",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="With --engine ray: cores of each process with a model on the CPU.",
)


@dataclass(frozen=True)
class Engines:
    """The engines for these settings: `workers` processes, as many as there is room for unless it is said."""

    name: str
    settings: Settings
    random_weights: bool = False
    workers: int | None = None
    cpus: int = 1

    def segmenter(self) -> Segmenter:
        """The segmenter here, which for a cluster has to name its version alone: this machine may have no GPU."""
        settings = self.settings if self.name == LOCAL else replace(self.settings, device="cpu")
        return make_segmenter(settings, random_weights=self.random_weights)

    def engine(self, plan: Plan, out: Path, segmenter: Segmenter) -> Engine[Any]:
        """What carries out a plan in a folder. Raises `SettingsError` where Ray is asked for and missing."""
        return self._local(plan, out, segmenter) if self.name == LOCAL else self._ray(plan, out)

    def _local(self, plan: Plan, out: Path, segmenter: Segmenter) -> Engine[Any]:
        """Whole images in processes where the model is small and on the CPU, else the one model of this process."""
        processes = self.workers or cores()
        if self.settings.model == CLASSICAL and self.settings.device == "cpu":
            load = partial(make_segmenter, self.settings, random_weights=self.random_weights)
            return partial(model_per_process, plan, out, load, processes=processes)
        return partial(shared_model, plan, out, segmenter, processes=processes)

    def _ray(self, plan: Plan, out: Path) -> Engine[Any]:
        """Whole images in processes where the model is on the CPU, else a model on each GPU."""
        try:
            from walkcut.bulk.engines import ray_engine  # noqa: PLC0415 - needs an extra
        except ImportError as error:
            raise SettingsError(f"--engine ray cannot be had ({error}): pip install 'walkcut[ray]'") from error
        kind = self.settings.device.partition(":")[0]  # Ray says which GPU: the only one that a process sees
        load = partial(make_segmenter, replace(self.settings, device=kind), random_weights=self.random_weights)
        if kind == "cpu":
            return partial(ray_engine.model_per_process, plan, out, load, cpus=self.cpus, processes=self.workers)
        return partial(ray_engine.model_per_gpu, plan, out, load, processes=self.workers)
