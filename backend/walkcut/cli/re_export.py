"""`walkcut re-export`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import click

from walkcut.bulk.checkpoint import read_entries, read_run_settings
from walkcut.bulk.engines.local import available_cores, reexport
from walkcut.bulk.formats import FORMATS, LabelStudioFormat
from walkcut.bulk.items import CheckpointEntry, Item, ItemFailure
from walkcut.bulk.names import ImageNames, reference_name
from walkcut.bulk.plan import format_of_files, make_plan, project_of_files
from walkcut.bulk.runner import BulkRun
from walkcut.bulk.sinks import TaskFormat
from walkcut.cli.bulk import execute, export_options, read_label_config
from walkcut.cli.options import FOLDER
from walkcut.errors import SettingsError
from walkcut.hierarchy.granularity import Granularity
from walkcut.inference.factory import make_project_options, tree_folder
from walkcut.inference.project import Project, project_from_config
from walkcut.labelstudio.config import semantic_labels
from walkcut.learning.feedback import AnnotationFeedback
from walkcut.learning.profile import fit_profile
from walkcut.settings import Settings, read_settings
from walkcut.storage import ProjectStore


@click.command("re-export")
@click.argument("run_dir", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option("--out", "output_dir", required=True, type=FOLDER, help="Folder of the new output, another than DIR.")
@click.option("--format", "output_format", type=click.Choice(FORMATS), help="Output format.  [default: that of DIR]")
@click.option("--project", type=click.IntRange(1), metavar="ID", help="Use what this Label Studio project has learned.")
@export_options
def re_export(
    run_dir: Path,
    output_dir: Path,
    output_format: str | None,
    project: int | None,
    label_config: Path | None,
    granularities: Sequence[Granularity],
    tolerance: float | None,
    path_root: str,
    workers: int | None,
    restart: bool,
    retry_failed: bool,
) -> None:
    """Export the images of a `walkcut prelabel` run in DIR again, at another granularity or in another format.

    Neither the images nor the model are needed, but the cut trees, which are kept unless --no-trees was given. A run
    into a Label Studio project needs --project, to use what the project has learned, or --label-config, to export
    without that.
    """
    if run_dir.resolve() == output_dir.resolve():
        raise SettingsError(f"{run_dir} is the folder of the run itself: choose another folder as --out")
    settings, run_settings = read_settings(), read_run_settings(run_dir)
    config = read_label_config(label_config) or run_settings["label config"]
    segmenter, method = run_settings["segmenter"], run_settings["method"]
    is_of_project = run_settings["format"] == TaskFormat.name
    default_format = LabelStudioFormat.name if is_of_project else run_settings["format"]
    if project is None and is_of_project and not config:
        raise SettingsError(
            f"{run_dir} is a run into a Label Studio project: give its id with --project, to use what it has learned, "
            "or its labelling config with --label-config, to export without that"
        )
    if project is None:
        labels = project_of_files(settings, config)
    else:
        labels = _learned_project(settings, str(project), config, segmenter)
    file_format = format_of_files(output_format or default_format, labels, tolerance)
    plan = make_plan(
        settings, segmenter, method, labels, file_format, granularities, use_tree_cache=True, path_root=path_root
    )
    engine = partial(reexport, plan, output_dir, tree_folder(settings), processes=workers or available_cores())
    run = BulkRun(plan, engine, output_dir, config, restart=restart, retry_failed=retry_failed)
    execute(run, settings, _named(read_entries(run_dir), path_root))


def _named(entries: Iterable[CheckpointEntry], path_root: str) -> Iterator[CheckpointEntry | ItemFailure]:
    """Yield the entries, with names for the images of a project's tasks, or relative to the root if there is one."""
    names = ImageNames(path_root)
    for entry in entries:
        if entry.item.name and not path_root:
            yield entry
            continue
        named = names.assign(entry.item, entry.item.name or reference_name(entry.item.reference))
        yield replace(entry, item=named) if isinstance(named, Item) else named


def _learned_project(settings: Settings, project_id: str, label_config: str, segmenter: str) -> Project:
    """Return a project with the profile learned from its annotations, for a segmenter's version."""
    with closing(ProjectStore(settings.state_dir, settings.database_url)) as store:
        config = label_config or store.label_config(project_id)
        if not config:
            raise SettingsError(
                f"the labelling config of project {project_id} is not in this database, as the backend was not "
                "connected to it here: give it with --label-config"
            )
        project = project_from_config(config, make_project_options(settings), store.extra_params(project_id))
        if not (settings.learning and store.learning(project_id)):
            return project
        feedback = map(AnnotationFeedback.from_json, store.annotations.feedback(project_id))
        return project.with_profile(fit_profile(feedback, segmenter, semantic_labels(project.image_tags)))
