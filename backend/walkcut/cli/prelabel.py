"""`walkcut prelabel`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click

from walkcut.bulk.formats import FORMATS, LabelStudioFormat
from walkcut.bulk.sinks import LabelStudioSink, TaskFormat
from walkcut.bulk.sources.scan import project_items, read_sources
from walkcut.bulk.steps import Plan
from walkcut.cli.bulk import (
    PlanOptions,
    Run,
    granularity_option,
    label_config_option,
    make_plan,
    restart_option,
    retry_option,
    tolerance_option,
    workers_option,
)
from walkcut.cli.engines import Engines, cpus_option, engine_option
from walkcut.cli.options import method_option, model_option, random_weights_option
from walkcut.errors import SettingsError
from walkcut.hierarchy.granularity import Granularity
from walkcut.images import DecodeLimits
from walkcut.inference.factory import with_overrides
from walkcut.inference.model import InProcessModel
from walkcut.segmentation.segmenter import Segmenter
from walkcut.serving.backend import make_backend
from walkcut.settings import Settings, read_settings


@click.command()
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("--project", type=click.IntRange(1), help="Label this Label Studio project's tasks instead.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), help="Folder for the results.")
@click.option("--format", "form", type=click.Choice(tuple(FORMATS)), default=LabelStudioFormat.name, show_default=True)
@click.option("--image-key", default="", help="Where references are in lists.  [image, url, path or file_name]")
@label_config_option
@granularity_option
@tolerance_option
@model_option
@method_option
@random_weights_option
@workers_option
@engine_option
@cpus_option
@click.option(
    "--trees/--no-trees", default=True, show_default=True, help="Keep cut trees, for `walkcut re-export` too."
)
@click.option(
    "--replace", is_flag=True, help="With --project: delete walkcut's earlier predictions where new ones are in."
)
@restart_option
@retry_option
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Port to ask for Prometheus metrics meanwhile.")
def prelabel(
    sources: Sequence[str],
    project: int | None,
    out: Path | None,
    form: str,
    image_key: str,
    label_config: Path | None,
    granularities: Sequence[Granularity],
    tolerance: float,
    model: str | None,
    method: str | None,
    random_weights: bool,  # noqa: FBT001 - the command line's switches
    workers: int | None,
    engine: str,
    cpus: int,
    trees: bool,  # noqa: FBT001
    replace: bool,  # noqa: FBT001
    restart: bool,  # noqa: FBT001
    retry_failed: bool,  # noqa: FBT001
    metrics_port: int | None,
) -> None:
    """Pre-label many images. The same command goes on where an earlier one was ended, whatever ended it.

    SOURCE is a folder, a pattern, an image, a list (JSON, JSON lines, CSV or Parquet) or a URL of a cloud storage
    (s3://, gs://). With --project predictions go into Label Studio, for tasks that nobody has annotated and that have
    none of the present version, which changes with what the project learns; else files go to --out. Images that fail
    are named in OUT/failed.jsonl, the others are done, and the exit status is 1.
    """
    if bool(sources) == (project is not None):
        raise SettingsError("say what to label: either sources or --project")
    if replace and project is None:
        raise SettingsError("--replace is about predictions in Label Studio: say with --project in which project")
    settings = with_overrides(read_settings(), model=model, method=method)
    engines = Engines(engine, settings, random_weights, workers, cpus)
    segmenter = engines.segmenter()

    def run(plan: Plan, folder: Path, config: str = "") -> Run:
        return Run(
            settings,
            plan,
            engines.engine(plan, folder, segmenter),
            folder,
            config,
            trees,
            restart,
            retry_failed,
            metrics_port,
        )

    if project is not None:
        if label_config or granularities or image_key or form != LabelStudioFormat.name:
            raise SettingsError("a project has its own labelling config and granularities: leave those options out")
        _into_project(str(project), out, settings, segmenter, run, trees=trees, replacing=replace)
        return
    if out is None:
        raise SettingsError("say with --out into which folder the results go")
    config = label_config.read_text() if label_config else ""
    plan = PlanOptions(form, config, granularities, tolerance).plan(
        settings, segmenter.version, segmenter.preset.name, trees=trees
    )
    items = partial(
        read_sources,
        sources,
        image_key=image_key,
        data_key=plan.project.controls[0].data_key,
        root=settings.local_files_root,
    )
    run(plan, out, config).run(items(), total=lambda: sum(1 for _ in items()))


def _into_project(
    project: str,
    out: Path | None,
    settings: Settings,
    segmenter: Segmenter,
    run: Callable[[Plan, Path], Run],
    *,
    trees: bool,
    replacing: bool,
) -> None:
    """Predict the tasks that nobody has annotated, as the backend would; those that it has predicted are left out."""
    model = InProcessModel(segmenter, DecodeLimits(settings.max_pixels))
    with make_backend(settings, lambda *_: model) as backend:
        client, wanted = backend.require_client(), backend.project(project)
        plan = make_plan(
            settings,
            wanted,
            wanted.options.granularities,
            TaskFormat(wanted.controls),
            segmenter.version,
            segmenter.preset.name,
            trees=trees,
        )
        folder = out or settings.state_dir / "prelabel" / f"project-{project}" / plan.versions[-1]
        run(plan, folder).run_into(
            lambda checkpoint: LabelStudioSink(checkpoint, client, project, wanted, plan.versions, replacing=replacing),
            lambda _: project_items(client.unannotated_tasks(project), wanted.controls, plan.versions),
        )
