"""`walkcut project`: what a project has learned, and what to do about it."""

import json
from contextlib import closing
from typing import Any

import click

from walkcut.errors import RequestError, SettingsError
from walkcut.labelstudio import parse_brush_controls, semantic_labels
from walkcut.learning.examples import AnnotationFeedback, ProjectProfile, fit_profile
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
    """Show what a project has learned, from which tasks, and the feedback of each annotation, as JSON."""
    project_id = str(project)
    with _store() as store:
        rows, config, on = store.all_feedback(project_id), store.label_config(project_id), store.learning(project_id)
        all_feedback = [(AnnotationFeedback.from_json(row), disabled) for row, disabled in rows]
        enabled = map(AnnotationFeedback.from_json, store.feedback(project_id))
        labels = semantic_labels(parse_brush_controls(config)) if config else frozenset()
        newest = max((feedback for feedback, _ in all_feedback), key=lambda item: item.updated_at, default=None)
        profile = ProjectProfile() if newest is None else fit_profile(enabled, newest.segmenter_version, labels)
        document = {
            "project": project,
            "learning": on,
            "granularity": None if profile.granularity is None else str(profile.granularity),
            "granularity_from": _sources(profile.granularity_from),
            "labels": {label: _sources(sources) for label, sources in profile.labels_from.items()},
            "version": profile.digest,
            "feedback": [_summary(feedback) | {"disabled": disabled} for feedback, disabled in all_feedback],
        }
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


@project.command()
@project_argument
@click.option("--annotation", type=int, help="The annotation whose feedback is disabled.")
@click.option("--task", type=int, help="The task all of whose annotations' feedback is disabled.")
def undo(project: int, annotation: int | None, task: int | None) -> None:
    """Undo what an annotation or a task taught, until the annotation is changed."""
    if (annotation is None) == (task is None):
        raise SettingsError("say which feedback to disable: either --annotation or --task")
    with _store() as store:
        enabled = [
            AnnotationFeedback.from_json(row) for row, disabled in store.all_feedback(str(project)) if not disabled
        ]
        chosen = [
            feedback
            for feedback in enabled
            if annotation in (None, feedback.annotation_id) and task in (None, feedback.task_id)
        ]
        if not chosen:
            what = f"annotation {annotation}" if task is None else f"task {task}"
            raise RequestError(f"{what} has taught project {project} nothing: see `walkcut project show {project}`")
        for feedback in chosen:
            store.disable_feedback(str(project), feedback.annotation_id)
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


def _summary(feedback: AnnotationFeedback) -> dict[str, Any]:
    """Return an annotation's feedback in brief."""
    scores = feedback.covering_scores
    return {
        "task": feedback.task_id,
        "annotation": feedback.annotation_id,
        "updated_at": feedback.updated_at,
        "source_model_version": feedback.source_model_version,
        "best_granularity": max(scores, key=scores.__getitem__, default=None),
        "labels": sorted(feedback.labels),
    }


def _sources(sources: tuple[tuple[int, int], ...]) -> list[dict[str, int]]:
    return [{"task": task, "annotation": annotation} for task, annotation in sources]


def _store() -> closing[ProjectStore]:
    """What is remembered, without the model that took it in."""
    settings = read_settings()
    return closing(ProjectStore(settings.state_dir, settings.database_url))
