"""`walkcut segment`."""

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from walkcut.bulk.items import Item, ItemFailure, SkipCount, Skipped
from walkcut.bulk.jsonl import HashSet64
from walkcut.bulk.names import ImageNames
from walkcut.bulk.sources.folders import images_below
from walkcut.bulk.sources.scan import REPEATED
from walkcut.cli.options import (
    FOLDER,
    GRANULARITIES,
    PATH,
    GranularityType,
    chosen_settings,
    model_options,
    random_weights_option,
)
from walkcut.errors import SettingsError, WalkcutError
from walkcut.hierarchy.granularity import Granularity
from walkcut.images import DecodeLimits, decode
from walkcut.images.encode import encode_png
from walkcut.inference.factory import make_segmenter
from walkcut.segmentation.segmenter import Segmenter
from walkcut.segmentation.visualization import draw_overlay


@click.command()
@click.argument("sources", nargs=-1, required=True, type=PATH, metavar="IMAGE|FOLDER...")
@click.option("--out", "output_dir", required=True, type=FOLDER, help="Folder for the results.")
@click.option("--granularity", type=GranularityType(), help=GRANULARITIES)
@model_options
@random_weights_option
@click.option("--tree", is_flag=True, help="Also write the cut tree, as NAME.tree.npz.")
def segment(
    sources: Sequence[Path],
    output_dir: Path,
    granularity: Granularity | None,
    method: str | None,
    model: str | None,
    device: str | None,
    random_weights: bool,
    tree: bool,
) -> None:
    """Segment images: for each a 16-bit label PNG, an overlay, and a line of JSON on standard output.

    Segments are numbered from 1. Results are named like the images, with the folders below the FOLDER. Images that
    cannot be segmented are reported on standard error; the exit status is then 1.
    """
    settings = chosen_settings(model, method, device)
    granularity = settings.granularity if granularity is None else granularity
    _check_output(sources, output_dir)
    segmenter = make_segmenter(settings, random_weights=random_weights)
    output_dir.mkdir(parents=True, exist_ok=True)
    click.echo(f"model: {settings.model}", err=True)
    skipped: defaultdict[str, SkipCount] = defaultdict(SkipCount)
    done = failed = 0
    for found in tqdm(_images(sources, output_dir), unit="image", disable=None):
        if isinstance(found, Skipped):
            skipped[found.reason].add(found)
            continue
        try:
            if isinstance(found, ItemFailure):
                raise SettingsError(found.reason)
            _segment_one(found, output_dir, segmenter, granularity, DecodeLimits(settings.max_pixels), keep_tree=tree)
            done += 1
        except (WalkcutError, OSError) as error:
            failed += 1
            reason = error.strerror if isinstance(error, OSError) else error
            tqdm.write(f"{found.reference}: {reason}", file=sys.stderr)
    for reason, group in skipped.items():
        click.echo(f"{group.count} skipped: {reason} ({', '.join(group.examples)})", err=True)
    click.echo(f"{done} done, {failed} failed, {sum(group.count for group in skipped.values())} skipped", err=True)
    sys.exit(failed > 0)


def _check_output(sources: Sequence[Path], output_dir: Path) -> None:
    """Raise `SettingsError` for a folder of images that is also that of the results: they would be images next time."""
    if output_dir.resolve() in {source.resolve() for source in sources if source.is_dir()}:
        raise SettingsError(f"{output_dir} holds the images: choose another --out, such as {output_dir / 'masks'}")


def _images(sources: Sequence[Path], output_dir: Path) -> Iterator[Item | ItemFailure | Skipped]:
    """Yield the images of the sources with unique keys, without those in the output folder."""
    names, references, results = ImageNames(), HashSet64(), output_dir.resolve()
    for source in sources:
        try:
            for found in images_below(str(source)) if source.is_dir() else [Item(source.name, str(source))]:
                if not isinstance(found, Item):
                    yield found
                elif source.is_dir() and Path(found.reference).resolve().is_relative_to(results):
                    continue
                elif references.add(os.path.abspath(found.reference)):
                    yield names.assign(found, found.key)
                else:
                    yield Skipped(found.reference, REPEATED)
        except SettingsError as error:
            yield ItemFailure(source.name, str(source), "source", str(error))


def _segment_one(
    item: Item,
    output_dir: Path,
    segmenter: Segmenter,
    granularity: Granularity,
    limits: DecodeLimits,
    *,
    keep_tree: bool,
) -> None:
    """Segment one image, write its results and print its line."""
    path, begin = output_dir / item.key, time.perf_counter()
    if path.with_name(f"{path.name}.png").resolve() == Path(item.reference).resolve():
        raise SettingsError("its label image would overwrite it: choose another --out")
    image = decode(Path(item.reference).read_bytes(), limits)
    tree = segmenter.segment(image)
    labels = tree.labels(granularity)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_name(f"{path.name}.png").write_bytes(encode_png(labels + np.uint16(1)))
    path.with_name(f"{path.name}.overlay.png").write_bytes(encode_png(draw_overlay(image, labels)))
    if keep_tree:
        path.with_name(f"{path.name}.tree.npz").write_bytes(tree.to_bytes())
    segments, seconds = tree.segment_count(granularity), round(time.perf_counter() - begin, 3)
    line = {
        "image": item.reference,
        "name": item.key,
        "segments": segments,
        "granularity": str(granularity),
        "seconds": seconds,
    }
    if tree.degradations:
        line["degradations"] = list(tree.degradations)
    tqdm.write(json.dumps(line, ensure_ascii=False), file=sys.stdout)
