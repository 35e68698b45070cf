"""Choice of the engine that fits a model and its device."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from walkcut.bulk.engines.local import available_cores, model_per_process, shared_model
from walkcut.bulk.plan import Plan
from walkcut.bulk.runner import Engine
from walkcut.errors import SettingsError
from walkcut.inference.factory import make_segmenter
from walkcut.models import CLASSICAL, HED
from walkcut.settings import Settings

if TYPE_CHECKING:
    from walkcut.segmentation.segmenter import Segmenter

LOCAL, RAY = "local", "ray"


@dataclass(frozen=True)
class EngineOptions:
    """Requested engine, for the model and the device of the settings."""

    name: str  # LOCAL or RAY
    settings: Settings
    random_weights: bool = False  # build the model without its weights
    workers: int | None = None  # by default one for each core, or as many as the cluster has room for
    cpus: int = 1  # cores of each process of a cluster with a model on the CPU

    def make_segmenter(self) -> "Segmenter":
        """Return this process's segmenter; for a cluster it gives the version only, as there may be no GPU here."""
        settings = self.settings if self.name == LOCAL else replace(self.settings, device="cpu")
        return make_segmenter(settings, random_weights=self.random_weights)

    def make_engine(self, plan: Plan, output_dir: Path, segmenter: "Segmenter") -> Engine[Any]:
        """Return the engine of a plan: a model in each process if it is small and on the CPU, else one in this process.

        In a cluster there is a model in each process on the CPU, else one on each GPU. Raises `SettingsError` if Ray is
        requested and not installed.
        """
        device_type = self.settings.device.partition(":")[0]  # Ray chooses the GPU: a process sees only its own
        make = partial(make_segmenter, replace(self.settings, device=device_type), random_weights=self.random_weights)
        if self.name == RAY:
            try:
                from walkcut.bulk.engines.ray_engine import make_ray_engine  # noqa: PLC0415 - needs an extra
            except ImportError as error:
                raise SettingsError(f"--engine ray needs Ray ({error}): pip install 'walkcut[ray]'") from error
            return make_ray_engine(plan, output_dir, make, device_type, cpus=self.cpus, processes=self.workers)
        processes = self.workers or available_cores()
        if self.settings.model in (CLASSICAL, HED) and self.settings.device == "cpu":
            return partial(model_per_process, plan, output_dir, make, processes=processes)
        return partial(shared_model, plan, output_dir, segmenter, processes=processes)
