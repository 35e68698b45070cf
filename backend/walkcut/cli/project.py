"""`walkcut project`: what projects have learned from their annotations."""

import json
from collections.abc import Iterable
from contextlib import closing
from datetime import datetime, timezone
from operator import attrgetter
from typing import Any

import click

from walkcut.errors import SettingsError
from walkcut.labelstudio.config import parse_brush_controls, semantic_labels
from walkcut.learning.feedback import AnnotationFeedback, AnnotationRef
from walkcut.learning.profile import ProjectProfile, fit_profile
from walkcut.serving.backend import make_backend
from walkcut.settings import read_settings
from walkcut.storage import ProjectStore, SetAside

_project_argument = click.argument("project_id", type=click.IntRange(1), metavar="ID")


@click.group()
def project() -> None:
    """Show and change what Label Studio projects have learned from their annotations.

    ID is the project's id in Label Studio.
    """


@project.command()
@_project_argument
def show(project_id: int) -> None:
    """Show what a project has learned, from which tasks, and the feedback of each annotation, as JSON.

    label_confidence is the highest confidence that a name with each label can have, and names counts those that walkcut
    gave to regions of submitted annotations, and those that annotators kept.

    Annotations that could not be learned from are listed as set_aside, with the reason and the next attempt.
    """
    key = str(project_id)
    with _open_store() as store:
        annotations, label_config, enabled = store.annotations, store.label_config(key), store.learning(key)
        rows, backlog = annotations.all_feedback(key), annotations.backlog(key)
        failed = annotations.list_set_aside(key)
        learned_from = list(map(AnnotationFeedback.from_json, annotations.feedback(key)))
    all_feedback = [(AnnotationFeedback.from_json(row), disabled) for row, disabled in rows]
    newest = max((feedback for feedback, _ in all_feedback), key=attrgetter("updated_at"), default=None)
    profile = ProjectProfile()
    if newest is not None:
        labels = semantic_labels(parse_brush_controls(label_config)) if label_config else frozenset()
        profile = fit_profile(learned_from, newest.segmenter_version, labels)
    document = {
        "project": project_id,
        "learning": enabled,
        "granularity": None if profile.granularity is None else str(profile.granularity),
        "granularity_from": _references(profile.granularity_from),
        "labels": {label: _references(annotations) for label, annotations in profile.labels_from.items()},
        "label_confidence": {label: round(value, 3) for label, value in profile.highest_confidences.items()},
        "names": {
            "given": sum(feedback.names_given for feedback, _ in all_feedback),
            "kept": sum(feedback.names_kept for feedback, _ in all_feedback),
        },
        "profile": profile.digest,
        "pending": backlog.pending,
        "set_aside": [_set_aside_summary(item) for item in failed],
        "feedback": [_summary(feedback) | {"disabled": disabled} for feedback, disabled in all_feedback],
    }
    click.echo(json.dumps(document, indent=2, ensure_ascii=False))


@project.command()
@_project_argument
@click.option("--annotation", "annotation_id", type=int, help="The annotation whose feedback is disabled.")
@click.option("--task", "task_id", type=int, help="The task of the annotations whose feedback is disabled.")
def undo(project_id: int, annotation_id: int | None, task_id: int | None) -> None:
    """Disable the feedback of an annotation, or of all annotations of a task, until they are changed."""
    if (annotation_id is None) == (task_id is None):
        raise SettingsError("name the feedback to disable: either --annotation or --task")
    with _open_store() as store:
        rows = store.annotations.all_feedback(str(project_id))
        enabled = [AnnotationFeedback.from_json(row) for row, disabled in rows if not disabled]
        ids = [item.annotation_id for item in enabled if item.annotation_id == annotation_id or item.task_id == task_id]
        if not ids:
            name = f"annotation {annotation_id}" if task_id is None else f"task {task_id}"
            raise SettingsError(
                f"project {project_id} has learned nothing from {name}: see `walkcut project show {project_id}`"
            )
        for feedback_id in ids:
            store.annotations.disable(str(project_id), feedback_id)
    click.echo(f"{len(ids)} disabled")


@project.command()
@_project_argument
def reset(project_id: int) -> None:
    """Disable all feedback of a project; an annotation that is changed counts again."""
    with _open_store() as store:
        click.echo(f"{store.annotations.reset(str(project_id))} disabled")


@project.command()
@_project_argument
def forget(project_id: int) -> None:
    """Delete all that is known of a project, which was deleted in Label Studio or belongs to an earlier one."""
    with _open_store() as store:
        if not store.forget(str(project_id)):
            raise SettingsError(f"project {project_id} is not known: nothing was deleted")
    click.echo(f"project {project_id} forgotten")


@project.command()
@_project_argument
@click.argument("switch", type=click.Choice(("on", "off")))
def learning(project_id: int, switch: str) -> None:
    """Switch learning on or off for a project; while it is off, what was learned is kept but not used."""
    with _open_store() as store:
        store.set_learning(str(project_id), enabled=switch == "on")


@project.command()
@_project_argument
def sync(project_id: int) -> None:
    """Learn from annotations whose webhooks were lost or that were set aside, and forget those deleted."""
    with make_backend(read_settings()) as backend:
        result = backend.feedback_worker.sync(str(project_id))
    click.echo(f"{result.learned} learned, {result.forgotten} forgotten, {result.failed} failed")
    if result.failed:
        raise SystemExit(1)


def _summary(feedback: AnnotationFeedback) -> dict[str, Any]:
    scores = feedback.covering_scores
    return {
        "task": feedback.task_id,
        "annotation": feedback.annotation_id,
        "updated_at": feedback.updated_at,
        "source_model_version": feedback.source_model_version,
        "best_granularity": max(scores, key=scores.__getitem__, default=None),
        "labels": sorted(feedback.labels),
        "names": {"given": feedback.names_given, "kept": feedback.names_kept},
    }


def _set_aside_summary(item: SetAside) -> dict[str, Any]:
    next_attempt = (
        None if item.due is None else datetime.fromtimestamp(item.due, timezone.utc).isoformat("T", "seconds")
    )
    return {
        "task": item.task_id,
        "annotation": item.annotation_id,
        "problem": item.problem,
        "attempts": item.attempts,
        "next_attempt": next_attempt,
    }


def _references(annotations: Iterable[AnnotationRef]) -> list[dict[str, int]]:
    return [{"task": task_id, "annotation": annotation_id} for task_id, annotation_id in annotations]


def _open_store() -> closing[ProjectStore]:
    settings = read_settings()
    return closing(ProjectStore(settings.state_dir, settings.database_url))
