"""`walkcut re-export`."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import click

from walkcut.bulk.checkpoint import CheckpointEntry, Outcome, read_entries, read_fingerprint
from walkcut.bulk.engines.local import in_processes
from walkcut.bulk.formats import FORMATS, LabelStudioFormat
from walkcut.bulk.sinks import TaskFormat
from walkcut.bulk.steps import Plan, ReexportWorker
from walkcut.cli.bulk import (
    PlanOptions,
    Run,
    cores,
    granularity_option,
    label_config_option,
    restart_option,
    retry_option,
    tolerance_option,
    workers_option,
)
from walkcut.errors import SettingsError
from walkcut.hierarchy.granularity import Granularity
from walkcut.inference.factory import make_project_options, tree_folder
from walkcut.inference.project import Project, project_from_controls
from walkcut.labelstudio import parse_brush_controls, semantic_labels
from walkcut.learning.examples import AnnotationFeedback, fit_profile
from walkcut.settings import Settings, read_settings
from walkcut.storage import ProjectStore


@click.command("re-export")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Another folder.")
@click.option("--format", "form", type=click.Choice(tuple(FORMATS)), help="[as in DIR]")
@click.option("--project", type=click.IntRange(1), help="Cut as this Label Studio project has learned.")
@label_config_option
@granularity_option
@tolerance_option
@workers_option
@restart_option
@retry_option
def re_export(
    run: Path,
    out: Path,
    form: str | None,
    project: int | None,
    label_config: Path | None,
    granularities: Sequence[Granularity],
    tolerance: float,
    workers: int | None,
    restart: bool,  # noqa: FBT001 - the command line's switches
    retry_failed: bool,  # noqa: FBT001
) -> None:
    """Export what `walkcut prelabel` did in the folder DIR again, at another granularity, without images or model.

    It needs the cut trees, which are kept unless --no-trees was given. A run into a Label Studio project is cut with
    what that has learned, if --project names it, or else without, by its --label-config.
    """
    if run.resolve() == out.resolve():
        raise SettingsError(f"{run} is the run itself: choose another folder as --out")
    settings, held = read_settings(), read_fingerprint(run)
    config = label_config.read_text() if label_config else held["label config"]
    is_of_project = held["format"] == TaskFormat.name
    form = form or (LabelStudioFormat.name if is_of_project else held["format"])
    wishes = PlanOptions(form, config, granularities, tolerance)
    if project is not None:
        taught = _taught(settings, str(project), config, held["segmenter"])
        plan = wishes.plan_for(taught, settings, held["segmenter"], held["method"], trees=True)
    elif config or not is_of_project:
        plan = wishes.plan(settings, held["segmenter"], held["method"], trees=True)
    else:
        raise SettingsError(
            f"{run} is a run into a Label Studio project: name that with --project, to cut as it has learned, or give "
            "its labelling config with --label-config, to cut without that"
        )
    engine = partial(_re_export, plan, out, tree_folder(settings), workers or cores())
    again = Run(settings, plan, engine, out, config, restart=restart, retry_failed=retry_failed)
    again.run(read_entries(run))


def _re_export(
    plan: Plan, out: Path, trees: Path, processes: int, entries: Iterable[CheckpointEntry]
) -> Iterator[Outcome]:
    """Every image's tree cut anew."""
    return in_processes(partial(ReexportWorker, plan, trees, out), entries, processes=processes)


def _taught(settings: Settings, number: str, label_config: str, segmenter: str) -> Project:
    """A project as its annotators taught it to be, by feedback on trees of a version of a segmenter."""
    with closing(ProjectStore(settings.state_dir, settings.database_url)) as store:
        config = label_config or store.label_config(number)
        if not config:
            raise SettingsError(
                f"the labelling config of project {number} is not known here, as it is where the backend was attached: "
                "give it with --label-config too"
            )
        controls = parse_brush_controls(config)
        project = project_from_controls(controls, make_project_options(settings), store.extra_params(number))
        if not (settings.learning and store.learning(number)):
            return project
        feedback = map(AnnotationFeedback.from_json, store.feedback(number))
        return project.with_profile(fit_profile(feedback, segmenter, semantic_labels(controls)))
