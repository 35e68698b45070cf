"""The tables of the projects' database. A change here needs a revision in `migrations`; a test compares the two."""

import json
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

METADATA = sa.MetaData()


class _Json(TypeDecorator[Any]):
    """JSON as text: PostgreSQL's own type refuses the infinities that Python writes and reads."""

    impl = sa.Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> str:  # noqa: ARG002
        return json.dumps(value)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        return json.loads(value)


EVENTS = sa.Table(
    "events",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("received", sa.DateTime(timezone=True), nullable=False),
    sa.Column("action", sa.String(64), nullable=False),
    sa.Column("project_id", sa.String(64), nullable=False, index=True),
    sa.Column("body", _Json, nullable=False),
    sa.Column("done", sa.Boolean, nullable=False, default=False),
    sa.Index("ix_events_pending", "id", sqlite_where=sa.text("NOT done"), postgresql_where=sa.text("NOT done")),
)
PROJECTS = sa.Table(
    "projects",
    METADATA,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("extra_params", _Json, nullable=False, default=dict),
    sa.Column("label_config", sa.Text, nullable=False, default=""),
    sa.Column("learning", sa.Boolean, nullable=False, default=True),
)
FEEDBACK = sa.Table(
    "feedback",
    METADATA,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("annotation_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("task_id", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.DateTime(timezone=True), nullable=False),
    sa.Column("disabled", sa.Boolean, nullable=False),
    sa.Column("document", _Json, nullable=False),  # kilobytes, so that the revision is read from the index alone
    sa.Index("ix_feedback_revision", "project_id", "disabled", "annotation_id", "updated"),
)
FEEDBACK_LABELS = sa.Table(
    "feedback_labels",
    METADATA,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("label", sa.String(64), primary_key=True),
    sa.Column("annotation_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Index("ix_feedback_labels_annotation", "project_id", "annotation_id"),
)
