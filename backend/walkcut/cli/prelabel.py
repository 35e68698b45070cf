"""`walkcut prelabel`."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import click

from walkcut.bulk.engines.options import LOCAL, RAY, EngineOptions
from walkcut.bulk.formats import FORMATS, LabelStudioFormat
from walkcut.bulk.plan import Plan, format_of_files, make_plan, project_of_files
from walkcut.bulk.runner import BulkRun
from walkcut.bulk.sinks import LabelStudioSink, TaskFormat
from walkcut.bulk.sources.scan import read_sources
from walkcut.bulk.sources.tasks import project_items
from walkcut.cli.bulk import execute, export_options
from walkcut.cli.options import FOLDER, model_options
from walkcut.errors import SettingsError
from walkcut.hierarchy.granularity import Granularity
from walkcut.images import DecodeLimits
from walkcut.inference.factory import tree_folder, with_overrides
from walkcut.inference.model import InProcessModel
from walkcut.serving.backend import make_backend
from walkcut.settings import Settings, read_settings
from walkcut.storage import TreeCache

_DEFAULT_CPUS = 1


@click.command()
@click.argument("sources", nargs=-1, metavar="SOURCE...")
@click.option("--project", type=click.IntRange(1), metavar="ID", help="Predict the tasks of this Label Studio project.")
@click.option(
    "--out",
    "output_dir",
    type=FOLDER,
    help="Folder of the run: output, state and failed.jsonl.  [with --project: prelabel/project-ID/VERSION in "
    "WALKCUT_STATE_DIR]",
)
@click.option(
    "--format", "output_format", type=click.Choice(FORMATS), default=LabelStudioFormat.name, help="Output format."
)
@click.option(
    "--image-key",
    metavar="NAME",
    help="Field of manifests that holds the image, such as image.url.  [default: image, url, path or file_name]",
)
@export_options
@model_options
@click.option(
    "--engine",
    type=click.Choice((LOCAL, RAY)),
    default=LOCAL,
    help="Run on this machine, or on the Ray cluster at RAY_ADDRESS (without it, one that is started here), by default "
    "with as many workers as it has room for.",
)
@click.option(
    "--cpus-per-worker",
    "cpus",
    type=click.IntRange(1),
    default=_DEFAULT_CPUS,
    help="With --engine ray: cores of each process with a model on the CPU.",
)
@click.option("--trees/--no-trees", "keep_trees", default=True, help="Keep the trees that `walkcut re-export` needs.")
@click.option(
    "--replace", is_flag=True, help="With --project: delete walkcut's earlier predictions of tasks that have new ones."
)
@click.option("--metrics-port", type=click.IntRange(1, 65535), help="Port for Prometheus metrics of the run.")
def prelabel(
    sources: Sequence[str],
    project: int | None,
    output_dir: Path | None,
    output_format: str,
    image_key: str | None,
    label_config: Path | None,
    granularities: Sequence[Granularity],
    tolerance: float | None,
    model: str | None,
    method: str | None,
    random_weights: bool,
    workers: int | None,
    engine: str,
    cpus: int,
    keep_trees: bool,
    replace: bool,
    restart: bool,
    retry_failed: bool,
    metrics_port: int | None,
) -> None:
    """Predict many images, into files or a Label Studio project. An interrupted run continues with the same command.

    SOURCE is a folder, a glob pattern, an image, a manifest (a list of images as JSON, JSON Lines, CSV or Parquet) or a
    URL in cloud storage (s3://, gs://); the output goes to --out. With --project, predictions are added to Label Studio
    instead, for tasks without annotations that lack the current model version, which changes when the project learns.
    Images that fail are listed in failed.jsonl in the folder of the run; the others are done, and the exit status is 1.
    """
    is_project = project is not None
    for_files = (label_config, granularities, image_key, tolerance is not None, output_format != LabelStudioFormat.name)
    refusals = {
        "give either sources or --project": bool(sources) == is_project,
        "--replace deletes predictions in Label Studio: give the project with --project": replace and not is_project,
        "--cpus-per-worker is for processes of a cluster: add --engine ray": cpus != _DEFAULT_CPUS and engine != RAY,
        "a project has its own labelling config, granularities and images: leave out --label-config, --granularity, "
        "--image-key, --format and --tolerance": is_project and any(for_files),
        "give the folder of the output with --out": not is_project and output_dir is None,
    }
    for message, applies in refusals.items():
        if applies:
            raise SettingsError(message)
    settings = with_overrides(read_settings(), model=model, method=method)
    engines = EngineOptions(engine, settings, random_weights, workers, cpus)
    segmenter = engines.make_segmenter()
    tree_cache = TreeCache(tree_folder(settings), settings.cache_bytes) if keep_trees else None
    metrics_address = None if metrics_port is None else (settings.host, metrics_port)

    def make_run(plan: Plan, run_dir: Path, config: str = "") -> BulkRun:
        run_engine = engines.make_engine(plan, run_dir, segmenter)
        return BulkRun(plan, run_engine, run_dir, config, tree_cache, metrics_address, restart, retry_failed)

    if project is not None or output_dir is None:  # never both, see above
        tree_model = InProcessModel(segmenter, DecodeLimits(settings.max_pixels))
        _predict_project(str(project), output_dir, settings, tree_model, make_run, keep_trees, replace)
        return
    config = label_config.read_text() if label_config else ""
    files_project = project_of_files(settings, config)
    plan = make_plan(
        settings,
        segmenter.version,
        segmenter.preset.name,
        files_project,
        format_of_files(output_format, files_project, tolerance),
        granularities,
        use_tree_cache=keep_trees,
    )
    data_key, root = plan.project.controls[0].data_path, settings.local_files_root
    items = partial(read_sources, sources, image_key=image_key or "", data_key=data_key, local_files_root=root)
    execute(make_run(plan, output_dir, config), settings, items(), total=lambda: sum(1 for _ in items()))


def _predict_project(
    project_id: str,
    output_dir: Path | None,
    settings: Settings,
    model: InProcessModel,
    make_run: Callable[[Plan, Path], BulkRun],
    keep_trees: bool,
    replace: bool,
) -> None:
    """Predict the tasks without annotations, as the backend does; tasks that have these predictions are skipped."""
    with make_backend(settings, lambda *_: model) as backend:
        client, project = backend.require_client(), backend.project(project_id)
        granularities, task_format = project.options.granularities, TaskFormat(project.controls)
        plan = make_plan(
            settings, model.version, model.preset_name, project, task_format, granularities, use_tree_cache=keep_trees
        )
        versions = plan.versions
        run_dir = output_dir or settings.state_dir / "prelabel" / f"project-{project_id}" / versions[-1].replace(
            " ", "-"
        )
        jobs = project_items(client.unannotated_tasks(project_id), project.controls, versions[-1])
        make_sink = partial(
            LabelStudioSink, client=client, project_id=project_id, project=project, versions=versions, replacing=replace
        )
        execute(make_run(plan, run_dir), settings, jobs, make_sink=make_sink)
