"""The tables of the projects' database. A change here needs a revision in `migrations`; a test compares the two."""

import json
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator

METADATA = MetaData()


class _Json(TypeDecorator[Any]):
    """JSON as text: PostgreSQL's own type refuses the infinities that Python writes and reads."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:  # noqa: ARG002
        return json.dumps(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Any:  # noqa: ARG002
        return json.loads(value)


EVENTS = Table(
    "events",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("received", DateTime(timezone=True), nullable=False),
    Column("action", String(64), nullable=False),
    Column("project_id", String(64), nullable=False, index=True),
    Column("body", _Json, nullable=False),
    Column("done", Boolean, nullable=False, default=False),
    Index("ix_events_pending", "id", sqlite_where=text("NOT done"), postgresql_where=text("NOT done")),
)
PROJECTS = Table(
    "projects",
    METADATA,
    Column("project_id", String(64), primary_key=True),
    Column("extra_params", _Json, nullable=False, default=dict),
    Column("label_config", Text, nullable=False, default=""),
    Column("learning", Boolean, nullable=False, default=True),
)
FEEDBACK = Table(
    "feedback",
    METADATA,
    Column("project_id", String(64), primary_key=True),
    Column("annotation_id", BigInteger, primary_key=True, autoincrement=False),
    Column("task_id", BigInteger, nullable=False),
    Column("updated", DateTime(timezone=True), nullable=False),
    Column("disabled", Boolean, nullable=False),
    Column("document", _Json, nullable=False),  # kilobytes, so that the revision is read from the index alone
    Index("ix_feedback_revision", "project_id", "disabled", "annotation_id", "updated"),
)
FEEDBACK_LABELS = Table(
    "feedback_labels",
    METADATA,
    Column("project_id", String(64), primary_key=True),
    Column("label", String(64), primary_key=True),
    Column("annotation_id", BigInteger, primary_key=True, autoincrement=False),
    Index("ix_feedback_labels_annotation", "project_id", "annotation_id"),
)
