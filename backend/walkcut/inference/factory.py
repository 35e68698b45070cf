"""The parts of a deployment, made from its settings."""

import multiprocessing
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from walkcut.auth import is_loopback
from walkcut.errors import SettingsError
from walkcut.images import DecodeLimits, FetchPolicy, ImageLoader, LabelStudioAccess
from walkcut.inference.model import InProcessModel, TreeModel
from walkcut.inference.predictor import Predictor
from walkcut.inference.process import ModelProcess
from walkcut.inference.project import ProjectOptions
from walkcut.inference.supervised_model import SupervisedModel
from walkcut.inference.tree_service import TreeService
from walkcut.settings import Settings
from walkcut.storage import TreeCache
from walkcut.storage.quarantine import Quarantine
from walkcut.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from walkcut.segmentation.segmenter import Segmenter

ModelFactory = Callable[[Settings, Metrics], TreeModel]


def make_segmenter(settings: Settings, *, random_weights: bool = False) -> "Segmenter":
    """Return the segmenter of the settings, on their device; loads torch. Raises `SettingsError`."""
    from walkcut.segmentation.segmenter import load_configured_segmenter  # noqa: PLC0415 - nothing else loads torch

    return load_configured_segmenter(
        settings.model,
        settings.method,
        device=settings.device,
        dtype=settings.dtype,
        weights_dir=settings.weights_dir,
        random_weights=random_weights,
    )


def in_process_model(settings: Settings, _metrics: Metrics) -> TreeModel:
    """Return the model, in this process."""
    return InProcessModel(make_segmenter(settings), DecodeLimits(settings.max_pixels))


def supervised_model(settings: Settings, metrics: Metrics) -> TreeModel:
    """Return the model, in a separate process that is restarted when it dies."""
    multiprocessing.set_forkserver_preload(["walkcut.segmentation.segmenter"])  # restarts then take no import time
    quarantine = Quarantine(settings.state_dir / "quarantine")
    limits, timeout = DecodeLimits(settings.max_pixels), settings.segment_timeout
    start = partial(ModelProcess, partial(make_segmenter, settings), limits, timeout=timeout)
    model = SupervisedModel(start, quarantine, metrics)
    metrics.quarantined.set_function(lambda: len(quarantine))
    metrics.watch_process("model", lambda: model.pid)
    return model


def make_predictor(
    settings: Settings, make_model: ModelFactory = in_process_model, metrics: Metrics | None = None
) -> Predictor:
    """Return the predictor of the settings, with the given kind of model."""
    metrics = metrics or Metrics()
    cache = TreeCache(tree_folder(settings), settings.cache_bytes)
    tree_service = TreeService(make_model(settings, metrics), cache, metrics)
    loader = make_image_loader(settings)
    return Predictor(tree_service, loader, make_project_options(settings), timeout=settings.predict_timeout)


def make_image_loader(settings: Settings) -> ImageLoader:
    """Return the loader of the images that tasks refer to."""
    return ImageLoader(make_fetch_policy(settings), make_access(settings), trusts_callers=trusts_callers(settings))


def make_project_options(settings: Settings) -> ProjectOptions:
    """Return the options that projects start from."""
    return ProjectOptions(settings.granularity, settings.max_regions, settings.min_area, settings.label_confidence)


def make_fetch_policy(settings: Settings) -> FetchPolicy:
    """Return the policy that decides where images may be fetched from."""
    return FetchPolicy(
        max_bytes=settings.max_bytes,
        timeout=settings.fetch_timeout,
        allow_private_hosts=settings.allow_private_hosts,
        allowed_hosts=frozenset(settings.allowed_hosts),
        only_allowed_hosts=settings.only_allowed_hosts,
        local_files_root=settings.local_files_root,
        ca_bundle=settings.ca_bundle,
    )


def make_access(settings: Settings) -> LabelStudioAccess | None:
    """Return the address and token of Label Studio; `None` if no address is set."""
    url, token = settings.label_studio_url, settings.label_studio_api_key
    if token and not url:
        raise SettingsError("LABEL_STUDIO_API_KEY is set without LABEL_STUDIO_URL: set both")
    return LabelStudioAccess(url, token) if url else None


def tree_folder(settings: Settings) -> Path:
    """Return the folder of the cached cut trees."""
    return settings.state_dir / "trees"


def trusts_callers(settings: Settings) -> bool:
    """Return whether only trusted callers reach the backend: by credentials, or on this machine alone."""
    return settings.credentials.required or is_loopback(settings.host)
