"""`walkcut project`: what a project has learned, and what to do about it."""

import json
from contextlib import closing

import click

from walkcut.errors import RequestError, SettingsError
from walkcut.labelstudio import parse_brush_controls, semantic_labels
from walkcut.learning.examples import ProjectProfile, fit_profile
from walkcut.serving.backend import make_backend
from walkcut.settings import read_settings
from walkcut.storage import ProjectStore

project_argument = click.argument("project", type=click.IntRange(1), metavar="ID")


@click.group()
def project() -> None:
    """Show and change what Label Studio projects have learned from their annotations.

    ID is a project's number in Label Studio.
    """


@project.command()
@project_argument
def show(project: int) -> None:
    """What a project has learned, from which tasks, and each annotation's lesson, as JSON."""
    number = str(project)
    with _store() as store:
        lessons, config, on = store.all_feedback(number), store.label_config(number), store.learning(number)
        labels = semantic_labels(parse_brush_controls(config)) if config else frozenset()
        newest = max((lesson for lesson, _ in lessons), key=lambda lesson: lesson.updated_at, default=None)
        learned = ProjectProfile() if newest is None else fit_profile(store.feedback(number), newest.segmenter, labels)
        document = {
            "project": project,
            "learning": on,
            "granularity": None if learned.granularity is None else str(learned.granularity),
            "granularity_from": _sources(learned.granularity_from),
            "labels": {label: _sources(sources) for label, sources in learned.labels_from.items()},
            "version": learned.digest,
            "lessons": [
                {
                    "task": lesson.task,
                    "annotation": lesson.annotation,
                    "updated_at": lesson.updated_at,
                    "source_model_version": lesson.source_model_version,
                    "fits_best": max(
                        lesson.covering_scores, key=lambda name: lesson.covering_scores[name], default=None
                    ),
                    "labels": sorted({example.label for example in lesson.examples}),
                    "disabled": disabled,
                }
                for lesson, disabled in lessons
            ],
        }
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


@project.command()
@project_argument
@click.option("--annotation", type=int, help="The annotation whose lesson is undone.")
@click.option("--task", type=int, help="The task all of whose annotations' lessons are undone.")
def undo(project: int, annotation: int | None, task: int | None) -> None:
    """Undo what an annotation or a task taught, until the annotation is changed."""
    if (annotation is None) == (task is None):
        raise SettingsError("say which lesson: either --annotation or --task")
    with _store() as store:
        lessons = [lesson for lesson, disabled in store.all_feedback(str(project)) if not disabled]
        chosen = [
            lesson for lesson in lessons if annotation in (None, lesson.annotation) and task in (None, lesson.task)
        ]
        if not chosen:
            what = f"annotation {annotation}" if task is None else f"task {task}"
            raise RequestError(f"{what} has taught project {project} nothing: see `walkcut project show {project}`")
        for lesson in chosen:
            store.disable_feedback(str(project), lesson.annotation)
    click.echo(f"{len(chosen)} undone")


@project.command()
@project_argument
def reset(project: int) -> None:
    """Undo all that a project has learned; annotations teach again when they are changed."""
    with _store() as store:
        click.echo(f"{store.reset(str(project))} undone")


@project.command()
@project_argument
@click.argument("switch", type=click.Choice(("on", "off")))
def learning(project: int, switch: str) -> None:
    """Switch learning on or off for a project; what it has learned is kept, but not used while it is off."""
    with _store() as store:
        store.set_learning(str(project), on=switch == "on")


@project.command()
@project_argument
def sync(project: int) -> None:
    """Learn from annotations that webhooks did not tell of, and forget those that are gone."""
    with make_backend(read_settings()) as backend:
        done = backend.feedback_worker.sync(str(project))
    click.echo(f"{done.learned} learned, {done.forgotten} forgotten, {done.failed} failed")
    if done.failed:
        raise SystemExit(1)


def _sources(sources: tuple[tuple[int, int], ...]) -> list[dict[str, int]]:
    return [{"task": task, "annotation": annotation} for task, annotation in sources]


def _store() -> closing[ProjectStore]:
    """What is remembered, without the model that took it in."""
    settings = read_settings()
    return closing(ProjectStore(settings.state_dir, settings.database_url))
