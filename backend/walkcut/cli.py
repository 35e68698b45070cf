"""The command `walkcut`."""

import json
import logging
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
import waitress
from PIL import Image
from tqdm import tqdm

from walkcut.annotator import Annotator, Options
from walkcut.errors import GranularityError, SettingsError, WalkcutError
from walkcut.extraction import EMBEDDED, MODELS, Weights, load_extractor
from walkcut.images import DecodeLimits, FetchPolicy, LabelStudioAccess, PictureSource, decode
from walkcut.overlay import draw_overlay
from walkcut.pipeline import RECIPES, Segmenter, read_recipe
from walkcut.segmentation.granularity import Granularity, parse_granularity
from walkcut.server import create_app
from walkcut.settings import Settings, read_settings
from walkcut.store import ProjectStore, TreeCache

log = logging.getLogger(__name__)


class _GranularityType(click.ParamType):
    """A granularity on the command line."""

    name = "granularity"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Granularity:
        """Parse it, or say what is understood."""
        try:
            return parse_granularity(str(value))
        except GranularityError as error:
            self.fail(str(error), param, ctx)


class _Command(click.Group):
    """Commands whose errors are one line with the remedy."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (WalkcutError, OSError) as error:
            raise click.ClickException(str(error)) from error


@click.group(cls=_Command, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(version("walkcut"))
def main() -> None:
    """Pre-annotate pictures with brush masks: attention as a random walk, cut by normalised cuts.

    Settings are environment variables; `walkcut settings` lists them.
    """


@main.command()
@click.option("--host", help="Address to listen on; 0.0.0.0 for all.  [WALKCUT_HOST, else 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [WALKCUT_PORT, else 9090]")
def serve(host: str | None, port: int | None) -> None:
    """Run the ML backend for Label Studio."""
    settings = read_settings()
    settings = replace(settings, host=host or settings.host, port=settings.port if port is None else port)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with closing(ProjectStore(settings.state_dir)) as store:
        app = create_app(_annotator(settings), store, settings)
        log.info("walkcut serves model %s on http://%s:%d", settings.model, settings.host, settings.port)
        log.info("state is kept in %s", settings.state_dir)
        waitress.serve(app, host=settings.host, port=settings.port, threads=settings.threads, ident="walkcut")


@main.command()
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="IMAGE...")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder for the results.")
@click.option("--granularity", type=_GranularityType(), help="auto, coarse, medium, fine, 12 or tau=0.4.")
@click.option("--method", type=click.Choice(tuple(RECIPES)), help="How the tree is made.")
@click.option("--model", help=f"Where evidence comes from: {', '.join(MODELS)}, a diffusers folder or a hub id.")
@click.option("--random-weights", is_flag=True, help="Build the model without its weights, to try it out.")
@click.option("--tree", is_flag=True, help="Store the cut tree as well, as STEM.tree.npz.")
def segment(
    images: Sequence[Path],
    out: Path,
    granularity: Granularity | None,
    method: str | None,
    model: str | None,
    random_weights: bool,  # noqa: FBT001 - the command line's switches
    tree: bool,  # noqa: FBT001
) -> None:
    """Segment pictures: a 16-bit label PNG and an overlay each, and a line of JSON on standard output.

    Segments are numbered from 1. A picture that cannot be read is named on standard error, the others are done, and
    the exit status is 1.
    """
    settings = read_settings()
    settings = replace(settings, method=method or settings.method, model=model or settings.model)
    wanted = settings.granularity if granularity is None else granularity
    segmenter = _segmenter(settings, random_weights=random_weights)
    out.mkdir(parents=True, exist_ok=True)
    failed = 0
    done: dict[str, Path] = {}
    for path in tqdm(images, unit="image", disable=not sys.stderr.isatty()):
        try:
            _claim(path, done)
            _segment_one(path, out, segmenter, wanted, DecodeLimits(settings.max_pixels), keep_tree=tree)
        except (WalkcutError, OSError) as error:
            failed += 1
            reason = error.strerror if isinstance(error, OSError) else error
            tqdm.write(f"{path}: {reason}", file=sys.stderr)
    sys.exit(1 if failed else 0)


@main.command("settings")
def list_settings() -> None:
    """List the settings: variable, value and meaning."""
    settings = read_settings()
    for spec in fields(Settings):
        value = getattr(settings, spec.name)
        shown = ("(set)" if not spec.repr else str(value)) if value not in {None, "", ()} else "-"
        click.echo(f"{spec.metadata['variable']:28} {shown:20} {spec.metadata['meaning']}")


def _claim(path: Path, done: dict[str, Path]) -> None:
    """Results bear the picture's stem: two pictures of one stem would overwrite each other's."""
    first = done.setdefault(path.stem, path)
    if first is not path:
        raise SettingsError(f"its results would overwrite those of {first}: use another --out for one of them")


def _segment_one(
    path: Path, out: Path, segmenter: Segmenter, granularity: Granularity, limits: DecodeLimits, *, keep_tree: bool
) -> None:
    """Segment one picture and write what was asked for."""
    begin = time.perf_counter()
    image = decode(path.read_bytes(), limits)
    tree = segmenter.tree(image)
    labels = tree.labels(granularity)
    Image.fromarray(labels + np.uint16(1)).save(out / f"{path.stem}.png")
    Image.fromarray(draw_overlay(image, labels)).save(out / f"{path.stem}.overlay.png")
    if keep_tree:
        (out / f"{path.stem}.tree.npz").write_bytes(tree.to_bytes())
    line = {
        "image": str(path),
        "segments": tree.segments(granularity),
        "granularity": str(granularity),
        "seconds": round(time.perf_counter() - begin, 3),
    }
    tqdm.write(json.dumps(line), file=sys.stdout)


def _segmenter(settings: Settings, *, random_weights: bool = False) -> Segmenter:
    """The model and method of the settings, on their device."""
    try:
        device = torch.device(settings.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"WALKCUT_DEVICE={settings.device!r} cannot be used here: {error}") from error
    recipe = read_recipe(settings.method or ("merge" if settings.model == EMBEDDED else "ncut"))
    weights = Weights(settings.weights, getattr(torch, settings.dtype), random_weights)
    if settings.model == EMBEDDED and not random_weights:
        weights = Weights()
    return Segmenter(load_extractor(settings.model, device=device, weights=weights), recipe, device)


def _annotator(settings: Settings) -> Annotator:
    """All that answers tasks, put together."""
    policy = FetchPolicy(
        max_bytes=settings.max_bytes,
        timeout=settings.fetch_timeout,
        allow_private_hosts=settings.allow_private_hosts,
        allowed_hosts=frozenset(settings.allowed_hosts),
        local_files_root=settings.local_files_root,
        ca_bundle=settings.ca_bundle,
    )
    url, token = settings.label_studio_url, settings.label_studio_api_key
    if token and not url:
        raise SettingsError("LABEL_STUDIO_API_KEY is of no use without LABEL_STUDIO_URL: set that too")
    return Annotator(
        _segmenter(settings),
        PictureSource(policy, LabelStudioAccess(url, token) if url else None),
        DecodeLimits(settings.max_pixels),
        TreeCache(settings.state_dir / "trees", settings.cache_bytes),
        Options(settings.granularity, settings.max_regions, settings.min_area),
    )
