"""`walkcut prelabel`."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace as with_fields
from functools import partial
from itertools import chain
from pathlib import Path

import click

from walkcut.bulk.engines.options import LOCAL, RAY, EngineOptions
from walkcut.bulk.formats import FORMATS, LabelStudioFormat
from walkcut.bulk.items import Item, Skipped
from walkcut.bulk.plan import Plan, format_of_files, make_plan, project_of_files
from walkcut.bulk.runner import BulkRun
from walkcut.bulk.sinks import LabelStudioSink, TaskFormat
from walkcut.bulk.sources.folders import Found
from walkcut.bulk.sources.scan import Addresses, read_sources
from walkcut.bulk.sources.tasks import annotated_tasks, project_items
from walkcut.bulk.sources.upload import upload_images
from walkcut.cli.bulk import execute, export_options, read_label_config
from walkcut.cli.options import FOLDER, chosen_settings, model_options, random_weights_option
from walkcut.errors import SettingsError
from walkcut.hierarchy.granularity import Granularity
from walkcut.images import DecodeLimits
from walkcut.inference.factory import tree_folder
from walkcut.inference.model import InProcessModel
from walkcut.serving.backend import make_backend
from walkcut.settings import Settings
from walkcut.storage import TreeCache

_DEFAULT_CPUS = 1
_FOLDER_URL = re.compile(r"https?://[^/?#][^?#]*")


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
@click.option(
    "--local-files-root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Folder that Label Studio serves as local files: tasks have its addresses there.  [default: "
    "WALKCUT_LOCAL_FILES_ROOT]",
)
@click.option(
    "--url-prefix",
    metavar="URL",
    help="Address at which a web server has the folder of the images: tasks have addresses below it.",
)
@click.option(
    "--upload", is_flag=True, help="With --project: upload the images of the sources first, as tasks of the project."
)
@click.option("--changed", is_flag=True, help="Process images again that have changed since, and those on the web.")
@export_options
@model_options
@random_weights_option
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
    local_files_root: Path | None,
    url_prefix: str | None,
    upload: bool,
    changed: bool,
    label_config: Path | None,
    granularities: Sequence[Granularity],
    tolerance: float | None,
    path_root: str,
    model: str | None,
    method: str | None,
    device: str | None,
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

    SOURCE is a folder, a glob pattern, an image, a manifest (a list of images as JSON, JSON Lines, CSV, TSV, Parquet or
    lines of text) or a URL in cloud storage (s3://, gs://); the output goes to --out. With --project, predictions are
    added to Label Studio instead, for tasks without annotations that lack the current model version, which changes when
    the project learns.
    Images that fail are listed in failed.jsonl in the folder of the run, and files and tasks that were skipped in
    skipped.jsonl; the others are done. The exit status is 1 if images failed.
    """
    is_project = project is not None
    is_formatted = output_format != LabelStudioFormat.name
    for_files = (label_config, granularities, image_key and not upload, tolerance is not None, path_root, is_formatted)
    addressing = (local_files_root, url_prefix)
    refusals = {
        "give either sources or --project, or both with --upload": bool(sources) == (is_project and not upload),
        "--upload makes tasks of a Label Studio project: give the project with --project": upload and not is_project,
        "--replace deletes predictions in Label Studio: give the project with --project": replace and not is_project,
        "--cpus-per-worker is for processes of a cluster: add --engine ray": cpus != _DEFAULT_CPUS and engine != RAY,
        "a project has its own labelling config, granularities and images: leave out --label-config, --granularity, "
        "--image-key, --format, --tolerance and --path-root": is_project and any(for_files),
        "--local-files-root, --url-prefix and --changed are for files: leave them out with --project": is_project
        and any((*addressing, changed)),
        "give one of --local-files-root and --url-prefix: an image has one address": all(addressing),
        f"--url-prefix {url_prefix} is no address of a folder: write https://HOST/FOLDER, without ? and #": bool(
            url_prefix
        )
        and not _FOLDER_URL.fullmatch(str(url_prefix)),
        "give the folder of the output with --out": not is_project and output_dir is None,
    }
    for message, applies in refusals.items():
        if applies:
            raise SettingsError(message)
    settings = chosen_settings(model, method, device)
    engines = EngineOptions(engine, settings, random_weights, workers, cpus)
    segmenter = engines.make_segmenter()
    tree_cache = TreeCache(tree_folder(settings), settings.cache_bytes) if keep_trees else None
    metrics_address = None if metrics_port is None else (settings.host, metrics_port)

    def make_run(plan: Plan, run_dir: Path, config: str = "") -> BulkRun:
        run_engine = engines.make_engine(plan, run_dir, segmenter)
        return BulkRun(plan, run_engine, run_dir, config, tree_cache, metrics_address, restart, retry_failed)

    if project is not None or output_dir is None:  # never both, see above
        tree_model = InProcessModel(segmenter, DecodeLimits(settings.max_pixels))
        uploads = partial(read_sources, sources, image_key=image_key or "") if upload else None
        _predict_project(str(project), output_dir, settings, tree_model, make_run, keep_trees, replace, uploads)
        return
    config = read_label_config(label_config)
    files_project = project_of_files(settings, config)
    plan = make_plan(
        settings,
        segmenter.version,
        segmenter.preset.name,
        files_project,
        format_of_files(output_format, files_project, tolerance),
        granularities,
        use_tree_cache=keep_trees,
        path_root=path_root,
    )
    root = local_files_root.resolve() if local_files_root else settings.local_files_root
    addresses = Addresses(plan.project.image_tags[0].data_path, None if url_prefix else root, url_prefix or "")
    items = partial(read_sources, sources, image_key=image_key or "", addresses=addresses, path_root=path_root)

    def listed() -> Iterator[Item]:
        return (item for item in items() if isinstance(item, Item))

    run = with_fields(
        make_run(plan, output_dir, config), addresses=str(addresses), relisted=listed if changed else None
    )
    click.echo(f"model: {settings.model}", err=True)
    execute(run, settings, items(), total=lambda: sum(not isinstance(item, Skipped) for item in items()))


def _predict_project(
    project_id: str,
    output_dir: Path | None,
    settings: Settings,
    model: InProcessModel,
    make_run: Callable[[Plan, Path], BulkRun],
    keep_trees: bool,
    replace: bool,
    uploads: Callable[..., Iterable[Found]] | None,
) -> None:
    """Predict the tasks without annotations, as the backend does; tasks that have these predictions are skipped.

    `uploads` lists the images to be uploaded first.
    """
    with make_backend(settings, lambda *_: model) as backend:
        client, project = backend.require_client(), backend.project(project_id)
        granularities, task_format = project.options.granularities, TaskFormat(project.image_tags)
        plan = make_plan(
            settings, model.version, model.preset_name, project, task_format, granularities, use_tree_cache=keep_trees
        )
        versions = plan.versions
        run_dir = output_dir or settings.state_dir / "prelabel" / f"project-{project_id}" / versions[-1].replace(
            " ", "-"
        )
        if uploads and len(project.image_tags) > 1:
            raise SettingsError(
                f"tasks of project {project_id} have {len(project.image_tags)} images each, and a file is one: import "
                "tasks in Label Studio instead of --upload"
            )
        data_path = project.image_tags[0].data_path if uploads else ""
        images = uploads(addresses=Addresses(data_path)) if uploads else ()
        jobs = chain(
            upload_images(images, client, project_id, data_path, plan.policy),
            project_items(client.unannotated_tasks(project_id), project.image_tags, versions[-1]),
            annotated_tasks(project_id, client.annotated_count(project_id)),
        )
        make_sink = partial(
            LabelStudioSink, client=client, project_id=project_id, project=project, versions=versions, replacing=replace
        )
        click.echo(f"model: {settings.model}", err=True)
        execute(make_run(plan, run_dir), settings, jobs, make_sink=make_sink)
