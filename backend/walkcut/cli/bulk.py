"""Options of `walkcut prelabel` and `walkcut re-export`, and the messages of their runs."""

import json
import logging
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import click

from walkcut.bulk.checkpoint import FAILED, SKIPPED, Checkpoint
from walkcut.bulk.formats import POLYGON_FORMATS, LabelStudioFormat
from walkcut.bulk.items import CheckpointEntry, Item
from walkcut.bulk.runner import BulkRun, RunInterrupted
from walkcut.bulk.sinks import Sink
from walkcut.bulk.sources.scan import is_shown
from walkcut.cli.options import FILE, GRANULARITIES, GranularityType, with_options
from walkcut.errors import SettingsError
from walkcut.labelstudio.config import ImageTag
from walkcut.masks.polygons import DEFAULT_TOLERANCE
from walkcut.settings import Settings
from walkcut.telemetry.logs import set_up_logging

log = logging.getLogger(__name__)

_INTERRUPTED = 130  # exit status of shells for Ctrl-C
_MAX_EXAMPLES = 3
_NOT_SHOWN = (
    "have the path of a file as image, which Label Studio cannot show: give --local-files-root, --url-prefix, or "
    "--upload with --project, and another --out; cut trees are kept, so that run is short"
)

export_options = with_options(
    click.option(
        "--label-config",
        type=FILE,
        help="Labelling config (XML) of the project that the output is for.  [default: one label, Region; with "
        "re-export, that of the run in DIR]",
    ),
    click.option(
        "--granularity",
        "granularities",
        type=GranularityType(),
        multiple=True,
        help=f"{GRANULARITIES} May be repeated for label-studio, the default last.",
    ),
    click.option(
        "--tolerance",
        type=click.FloatRange(0),
        metavar="PIXELS",
        help=f"For {', '.join(POLYGON_FORMATS)}: largest distance of a polygon from the region's border.  "
        f"[default: {DEFAULT_TOLERANCE}]",
    ),
    click.option(
        "--path-root",
        callback=lambda _context, _option, root: os.path.abspath(root) if root and "://" not in root else root or "",
        metavar="FOLDER",
        help="Names of images, and the folders of the output, are relative to this folder, or to this beginning of "
        "URLs.  [default: the source; with re-export, as in DIR]",
    ),
    click.option("--workers", type=click.IntRange(1), help="Number of worker processes.  [default: one per core]"),
    click.option("--restart", is_flag=True, help="Delete the files of the earlier run in this folder and start again."),
    click.option("--retry-failed", is_flag=True, help="Try failed images again."),
)


def read_label_config(path: Path | None) -> str:
    """Return the labelling config in a file, empty without one. Raises `SettingsError` for a file that holds none."""
    if path is None:
        return ""
    try:
        config = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(f"{path} is no text in UTF-8: save it as UTF-8") from error
    if not config.strip():
        raise SettingsError(f"{path} is empty: put the labelling config there, or leave out --label-config")
    return config


def execute(
    run: BulkRun,
    settings: Settings,
    jobs: Iterable[Any],
    total: Callable[[], int] | None = None,
    make_sink: Callable[[Checkpoint], Sink] | None = None,
) -> None:
    """Execute a run and print its result; exits with status 1 after failures, 130 after an interrupt."""
    set_up_logging(settings.log_level, settings.log_format)
    addresses = _AddressCheck(run.plan.project.image_tags[0])
    if run.plan.output_format.name == LabelStudioFormat.name:
        jobs = addresses.count(jobs)
    try:
        report = run.execute(jobs, total, make_sink)
    except RunInterrupted as interrupt:
        click.echo(f"interrupted with {interrupt.done} images done; the same command continues from there", err=True)
        sys.exit(_INTERRUPTED)
    click.echo(
        f"{report['images']} done in {report['seconds']:.1f} s, {report['images_per_second']:.2f} images/s; "
        f"in total {report['images_in_total']} done, {report['failed_in_total']} failed, {report['skipped']} skipped"
    )
    for reason, skipped in report["skipped_by_reason"].items():
        more = ", …" if skipped["count"] > len(skipped["examples"]) else ""
        click.echo(f"{skipped['count']} skipped: {reason} ({', '.join(skipped['examples'])}{more})", err=True)
    if report["skipped"]:
        click.echo(f"{run.output_dir / SKIPPED} lists all that were skipped", err=True)
    if addresses.not_shown:
        click.echo(f"warning: {addresses.not_shown} tasks {_NOT_SHOWN}", err=True)
    if report["tree_bytes"] > settings.cache_bytes:
        click.echo(
            f"the cut trees take {report['tree_bytes']} bytes: increase WALKCUT_CACHE_BYTES to keep them all", err=True
        )
    if report["failed_in_total"]:
        for reference, reason in _first_failures(run.output_dir):
            click.echo(f"failed: {reference}: {reason}", err=True)
        click.echo(f"{run.output_dir / FAILED} lists the reasons; --retry-failed tries these images again", err=True)
        sys.exit(1)


@dataclass
class _AddressCheck:
    """Counts tasks whose image Label Studio cannot show, and warns of the first before hours are spent."""

    image_tag: ImageTag
    not_shown: int = 0

    def count(self, jobs: Iterable[Any]) -> Iterator[Any]:
        """Yield the jobs."""
        for job in jobs:
            item = job.item if isinstance(job, CheckpointEntry) else job
            if isinstance(item, Item) and not is_shown(item.image([self.image_tag]).reference):
                if not self.not_shown:
                    log.warning("tasks, first that of %s, %s", item.reference, _NOT_SHOWN)
                self.not_shown += 1
            yield job


def _first_failures(output_dir: Path) -> Iterator[tuple[str, str]]:
    """Yield the references and reasons of the first failures."""
    with (output_dir / FAILED).open("rb") as lines:
        for line in islice(lines, _MAX_EXAMPLES):
            row = json.loads(line)
            yield row["reference"], row["reason"]
