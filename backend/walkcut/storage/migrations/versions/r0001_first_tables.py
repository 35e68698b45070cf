"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables of events, projects and feedback."""
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("received", sa.DateTime(timezone=True), nullable=False),
        sa.Column("action", sa.String(64), nullable=False),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("done", sa.Boolean, nullable=False),
    )
    op.create_index("ix_events_project_id", "events", ["project_id"])
    pending = sa.text("NOT done")
    op.create_index("ix_events_pending", "events", ["id"], sqlite_where=pending, postgresql_where=pending)
    op.create_table(
        "projects",
        sa.Column("project_id", sa.String(64), primary_key=True),
        sa.Column("extra_params", sa.Text, nullable=False),
        sa.Column("label_config", sa.Text, nullable=False),
        sa.Column("learning", sa.Boolean, nullable=False),
    )
    op.create_table(
        "feedback",
        sa.Column("project_id", sa.String(64), primary_key=True),
        sa.Column("annotation_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("task_id", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled", sa.Boolean, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
    )
    revision_columns = ["project_id", "disabled", "annotation_id", "updated"]
    op.create_index("ix_feedback_revision", "feedback", revision_columns)
    op.create_table(
        "feedback_labels",
        sa.Column("project_id", sa.String(64), primary_key=True),
        sa.Column("label", sa.String(64), primary_key=True),
        sa.Column("annotation_id", sa.BigInteger, primary_key=True, autoincrement=False),
    )
    op.create_index("ix_feedback_labels_annotation", "feedback_labels", ["project_id", "annotation_id"])
