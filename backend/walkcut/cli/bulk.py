"""What `walkcut prelabel` and `walkcut re-export` share."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any

import click

from walkcut.bulk.checkpoint import FAILED, Checkpoint, open_checkpoint
from walkcut.bulk.formats import FormatOptions, LabelStudioFormat, make_format
from walkcut.bulk.progress import RunStats, metrics, progress_bar
from walkcut.bulk.runner import Engine, fingerprint, run, write_report
from walkcut.bulk.sinks import FolderSink, Sink
from walkcut.bulk.steps import Plan
from walkcut.cli.options import GranularityType
from walkcut.errors import SettingsError
from walkcut.hierarchy.granularity import Granularity
from walkcut.images import DecodeLimits
from walkcut.inference.factory import make_access, make_fetch_policy, make_project_options, tree_folder
from walkcut.inference.project import Project, project_from_controls
from walkcut.labelstudio import BrushControl, parse_brush_controls
from walkcut.settings import Settings
from walkcut.storage import TreeCache
from walkcut.telemetry.logs import set_up_logging

_PLAIN = BrushControl("brush", "image", "image", ("Region",), labels=("Region",))
_INTERRUPTED = 130  # as shells have it

granularity_option = click.option(
    "--granularity",
    "granularities",
    type=GranularityType(),
    multiple=True,
    help="auto, coarse, medium, fine, 12, tau=0.4 or k=3; for label-studio also several, the default last.",
)
tolerance_option = click.option(
    "--tolerance", type=click.FloatRange(0), default=1.0, show_default=True, help="Of polygons, in pixels."
)
label_config_option = click.option(
    "--label-config",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Labelling config (XML) of the project that it is for.  [one label, Region]",
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes beside this one.  [one for a core, or what a cluster has room for]",
)
restart_option = click.option("--restart", is_flag=True, help="Start anew: delete what the run in --out wrote.")
retry_option = click.option("--retry-failed", is_flag=True, help="Try those again that failed.")


@dataclass(frozen=True)
class Run:
    """A plan with its engine and the folder of its ledger; without `keep_trees` no trees are added to the cache."""

    settings: Settings
    plan: Plan
    engine: Engine[Any]
    out: Path
    label_config: str = ""
    keep_trees: bool = False
    restart: bool = False
    retry_failed: bool = False
    metrics_port: int | None = None

    def sink(self, checkpoint: Checkpoint) -> Sink:
        """Files in the folder."""
        return FolderSink(checkpoint, self.plan.form)

    def run(self, jobs: Iterable[Any], total: Callable[[], int] | None = None) -> None:
        """Carry the jobs out, with files as their results; ends the command."""
        self.run_into(self.sink, lambda _: jobs, total)

    def run_into(
        self,
        open_sink: Callable[[Checkpoint], Any],
        jobs: Callable[[Any], Iterable[Any]],
        total: Callable[[], int] | None = None,
    ) -> None:
        """Carry out the jobs that there are for a sink; ends the command with status 1 after failures."""
        set_up_logging(self.settings.log_level, self.settings.log_format)
        multiprocessing.set_forkserver_preload(["walkcut.cli"])  # so that each process need not import it anew
        named = fingerprint(self.plan, self.label_config)
        with (
            _ended_by_sigterm(),
            open_checkpoint(self.out, named, restart=self.restart, retry_failed=self.retry_failed) as checkpoint,
        ):
            sink = open_sink(checkpoint)
            try:
                stats = self._watched(jobs(sink), checkpoint, sink, total)
                report = write_report(self.out, checkpoint, stats)
            except KeyboardInterrupt:
                click.echo(
                    f"interrupted: {checkpoint.done} done and kept; the same command goes on from there", err=True
                )
                sys.exit(_INTERRUPTED)
        click.echo(
            f"{report['images']} done in {report['seconds']:.1f} s, {report['images_per_second']:.2f} images/s; "
            f"in all {report['images_in_all']} done, {report['failed_in_all']} failed"
        )
        if stats.tree_bytes > self.settings.cache_bytes:
            click.echo(f"the cut trees take {stats.tree_bytes} bytes: raise WALKCUT_CACHE_BYTES to keep all", err=True)
        if report["failed_in_all"]:
            click.echo(f"{self.out / FAILED} says why; --retry-failed tries them again", err=True)
            sys.exit(1)

    def _watched(
        self, jobs: Iterable[Any], checkpoint: Checkpoint, sink: Sink, total: Callable[[], int] | None
    ) -> RunStats:
        """Carry the jobs out, with progress, and with metrics where they are asked for."""
        cache = TreeCache(tree_folder(self.settings), self.settings.cache_bytes) if self.keep_trees else None
        with ExitStack() as stack:
            observers = [stack.enter_context(progress_bar(total, before=checkpoint.done + checkpoint.failed))]
            if self.metrics_port is not None:
                observers.append(stack.enter_context(metrics(self.settings.host, self.metrics_port)))
            return run(jobs, self.engine, checkpoint, sink, cache, observers)


@dataclass(frozen=True)
class PlanOptions:
    """What is wished of images that belong to no project of Label Studio."""

    form: str
    label_config: str = ""
    granularities: Sequence[Granularity] = ()
    tolerance: float = 1.0

    def plan(self, settings: Settings, segmenter: str, method: str, *, trees: bool) -> Plan:
        """The plan for trees of a segmenter's version; what is not wished comes from labelling config and settings."""
        controls = parse_brush_controls(self.label_config) if self.label_config else (_PLAIN,)
        project = project_from_controls(controls, make_project_options(settings), {})
        return self.plan_for(project, settings, segmenter, method, trees=trees)

    def plan_for(self, project: Project, settings: Settings, segmenter: str, method: str, *, trees: bool) -> Plan:
        """The plan for a project. Raises `SettingsError` for one with several images a task."""
        if len(project.controls) > 1:
            images = ", ".join(control.to_name for control in project.controls)
            raise SettingsError(
                f"the labelling config has several images a task ({images}), and files are made of one: leave one, "
                "or import the tasks into Label Studio and use `walkcut prelabel --project`"
            )
        several = self.form == LabelStudioFormat.name
        wanted = tuple(self.granularities) or (
            project.options.granularities if several else (project.options.granularity,)
        )
        wished = replace(project, options=replace(project.options, granularity=wanted[-1]))
        form = make_format(self.form, FormatOptions(project.controls[0], self.tolerance))
        return make_plan(settings, wished, wanted, form, segmenter, method, trees=trees)


def make_plan(
    settings: Settings,
    project: Project,
    granularities: tuple[Granularity, ...],
    form: Any,
    segmenter: str,
    method: str,
    *,
    trees: bool,
) -> Plan:
    """A plan with the limits of the settings."""
    limits, folder = DecodeLimits(settings.max_pixels), tree_folder(settings) if trees else None
    policy, access = make_fetch_policy(settings), make_access(settings)
    return Plan(project, granularities, form, segmenter, method, limits, policy, access, folder)


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """Take the signal that asks processes to end for Ctrl-C."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
