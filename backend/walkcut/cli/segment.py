"""`walkcut segment`."""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np
from tqdm import tqdm

from walkcut.cli.options import FOLDER, GRANULARITIES, PATH, GranularityType, model_options, random_weights_option
from walkcut.errors import SettingsError, WalkcutError
from walkcut.hierarchy.granularity import Granularity
from walkcut.images import DecodeLimits, decode
from walkcut.images.encode import encode_png
from walkcut.inference.factory import make_segmenter, with_overrides
from walkcut.segmentation.segmenter import Segmenter
from walkcut.segmentation.visualization import draw_overlay
from walkcut.settings import read_settings


@click.command()
@click.argument("images", nargs=-1, required=True, type=PATH, metavar="IMAGE...")
@click.option("--out", "output_dir", required=True, type=FOLDER, help="Folder for the results.")
@click.option("--granularity", type=GranularityType(), help=GRANULARITIES)
@model_options
@random_weights_option
@click.option("--tree", is_flag=True, help="Also write the cut tree, as STEM.tree.npz.")
def segment(
    images: Sequence[Path],
    output_dir: Path,
    granularity: Granularity | None,
    method: str | None,
    model: str | None,
    device: str | None,
    random_weights: bool,
    tree: bool,
) -> None:
    """Segment images: for each a 16-bit label PNG, an overlay, and a line of JSON on standard output.

    Segments are numbered from 1. Images that cannot be segmented are reported on standard error; the exit status is
    then 1.
    """
    settings = with_overrides(read_settings(), model=model, method=method, device=device)
    granularity = settings.granularity if granularity is None else granularity
    segmenter = make_segmenter(settings, random_weights=random_weights)
    output_dir.mkdir(parents=True, exist_ok=True)
    failed = 0
    done: dict[str, Path] = {}
    for path in tqdm(images, unit="image", disable=None):
        try:
            _check_unique_stem(path, done.setdefault(path.stem, path))
            _segment_one(path, output_dir, segmenter, granularity, DecodeLimits(settings.max_pixels), keep_tree=tree)
        except (WalkcutError, OSError) as error:
            failed = 1
            reason = error.strerror if isinstance(error, OSError) else error
            tqdm.write(f"{path}: {reason}", file=sys.stderr)
    sys.exit(failed)


def _check_unique_stem(path: Path, first: Path) -> None:
    if first is not path:
        raise SettingsError(f"its results would overwrite those of {first}: use another --out for one of them")


def _segment_one(
    path: Path,
    output_dir: Path,
    segmenter: Segmenter,
    granularity: Granularity,
    limits: DecodeLimits,
    *,
    keep_tree: bool,
) -> None:
    """Segment one image, write its results and print its line."""
    begin = time.perf_counter()
    image = decode(path.read_bytes(), limits)
    tree = segmenter.segment(image)
    labels = tree.labels(granularity)
    (output_dir / f"{path.stem}.png").write_bytes(encode_png(labels + np.uint16(1)))
    (output_dir / f"{path.stem}.overlay.png").write_bytes(encode_png(draw_overlay(image, labels)))
    if keep_tree:
        (output_dir / f"{path.stem}.tree.npz").write_bytes(tree.to_bytes())
    segments, seconds = tree.segment_count(granularity), round(time.perf_counter() - begin, 3)
    line = {"image": str(path), "segments": segments, "granularity": str(granularity), "seconds": seconds}
    if tree.degradations:
        line["degradations"] = list(tree.degradations)
    tqdm.write(json.dumps(line), file=sys.stdout)
