"""`walkcut project`: what projects have learned from their annotations."""

import json
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timezone
from operator import attrgetter
from typing import Any

import click

from walkcut.errors import SettingsError
from walkcut.labelstudio.config import parse_image_tags, semantic_labels
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
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON, with the feedback of each annotation.")
def show(project_id: int, as_json: bool) -> None:
    """Show what a project has learned, and from how many tasks.

    The confidence of a label is the highest that a name with it can have. Names are given by walkcut to regions of
    annotations, and kept or changed by annotators.

    Annotations that could not be learned from are set aside, and listed with the reason and the next attempt.
    """
    with _open_project(project_id) as store:
        document = _describe_project(store, project_id)
    click.echo(json.dumps(document, indent=2, ensure_ascii=False) if as_json else "\n".join(_table(document)))


def _describe_project(store: ProjectStore, project_id: int) -> dict[str, Any]:
    """Return all that is known of a project, for JSON."""
    key = str(project_id)
    annotations, label_config = store.annotations, store.label_config(key)
    all_feedback = [(AnnotationFeedback.from_json(row), disabled) for row, disabled in annotations.all_feedback(key)]
    newest = max((feedback for feedback, _ in all_feedback), key=attrgetter("updated_at"), default=None)
    profile = ProjectProfile()
    if newest is not None:
        labels = semantic_labels(parse_image_tags(label_config)) if label_config else frozenset()
        learned_from = map(AnnotationFeedback.from_json, annotations.feedback(key))
        profile = fit_profile([*learned_from], newest.segmenter_version, labels)
    return {
        "project": project_id,
        "learning": store.learning(key),
        "granularity": None if profile.granularity is None else str(profile.granularity),
        "granularity_from": _references(profile.granularity_from),
        "labels": {label: _references(annotations) for label, annotations in profile.labels_from.items()},
        "label_confidence": {label: round(value, 3) for label, value in profile.highest_confidences.items()},
        "names": {
            "given": sum(feedback.names_given for feedback, _ in all_feedback),
            "kept": sum(feedback.names_kept for feedback, _ in all_feedback),
        },
        "profile": profile.digest,
        "pending": annotations.backlog(key).pending,
        "set_aside": [_set_aside_summary(item) for item in annotations.list_set_aside(key)],
        "feedback": [_summary(feedback) | {"disabled": disabled} for feedback, disabled in all_feedback],
    }


def _table(document: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a project's description for people."""
    feedback, set_aside, names = document["feedback"], document["set_aside"], document["names"]
    disabled = sum(item["disabled"] for item in feedback)
    granularity, tasks = document["granularity"], len({item["task"] for item in document["granularity_from"]})
    yield f"project      {document['project']}, learning {'on' if document['learning'] else 'off'}"
    yield (
        f"annotations  {len(feedback)} learned from ({disabled} disabled), {document['pending']} waiting, "
        f"{len(set_aside)} set aside"
    )
    yield f"granularity  {f'{granularity}, from {tasks} tasks' if granularity else 'none learned'}"
    yield f"names        {names['kept']} kept of {names['given']} given"
    if document["labels"]:
        width = max(map(len, ("label", *document["labels"])))
        yield ""
        yield f"{'label':{width}}  tasks  annotations  confidence"
        for label, references in document["labels"].items():
            tasks, confidence = len({item["task"] for item in references}), document["label_confidence"].get(label, 0)
            yield f"{label:{width}}  {tasks:5}  {len(references):11}  {confidence:10.2f}"
    if set_aside:
        yield ""
        yield f"{'annotation':10}  {'task':>8}  {'next attempt':25}  set aside because"
        for item in set_aside:
            next_attempt = item["next_attempt"] or "when it is changed"
            yield f"{item['annotation']:10}  {item['task']!s:>8}  {next_attempt:25}  {item['problem']}"


@project.command()
@_project_argument
@click.option("--annotation", "annotation_id", type=int, help="The annotation whose feedback is disabled.")
@click.option("--task", "task_id", type=int, help="The task of the annotations whose feedback is disabled.")
def undo(project_id: int, annotation_id: int | None, task_id: int | None) -> None:
    """Disable the feedback of an annotation, or of all annotations of a task, until they are changed."""
    if (annotation_id is None) == (task_id is None):
        raise SettingsError("name the feedback to disable: either --annotation or --task")
    with _open_project(project_id) as store:
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
    with _open_project(project_id) as store:
        click.echo(f"{store.annotations.reset(str(project_id))} disabled")


@project.command()
@_project_argument
def forget(project_id: int) -> None:
    """Delete all that is known of a project, which was deleted in Label Studio or belongs to an earlier one."""
    with _open_project(project_id) as store:
        store.forget(str(project_id))
    click.echo(f"project {project_id} forgotten")


@project.command()
@_project_argument
@click.argument("switch", type=click.Choice(("on", "off")))
def learning(project_id: int, switch: str) -> None:
    """Switch learning on or off for a project; while it is off, what was learned is kept but not used."""
    with _open_project(project_id) as store:
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


@contextmanager
def _open_project(project_id: int) -> Iterator[ProjectStore]:
    """Open the store of the settings. Raises `SettingsError` if it does not know the project."""
    settings = read_settings()
    with closing(ProjectStore(settings.state_dir, settings.database_url)) as store:
        key, known = str(project_id), sorted(filter(None, store.projects()), key=lambda name: (len(name), name))
        if key not in known and not store.annotations.known(key):
            raise SettingsError(
                f"project {project_id} is unknown here: open a task of it in Label Studio, or run "
                f"`walkcut project sync {project_id}`; known are {', '.join(known) or 'none'}"
            )
        yield store
