"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Create the tables of projects, of their annotations, and of the labels in those."""
    pending = sa.text("due NOTNULL")
    op.create_table(
        "projects",
        sa.Column("project_id", sa.String(64), primary_key=True),
        sa.Column("created", sa.BigInteger, nullable=False),
        sa.Column("extra_params", sa.Text, nullable=False),
        sa.Column("label_config", sa.Text, nullable=False),
        sa.Column("versions", sa.Text, nullable=False),
        sa.Column("learning", sa.Boolean, nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "annotations",
        sa.Column("project_id", sa.String(64), primary_key=True),
        sa.Column("annotation_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("task_id", sa.BigInteger, nullable=False),
        sa.Column("updated", sa.DateTime(timezone=True), nullable=False),
        sa.Column("learned_updated", sa.DateTime(timezone=True)),
        sa.Column("disabled_updated", sa.DateTime(timezone=True)),
        sa.Column("segmenter_version", sa.Text, nullable=False),
        sa.Column("is_offered", sa.Boolean, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("due", sa.Float(53)),
        sa.Column("reserved", sa.Float(53), nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("feedback", sa.Text, nullable=False),
        sa.Column("submission", sa.LargeBinary, nullable=False),
        sa.Index("ix_annotations_due", "due", sqlite_where=pending, postgresql_where=pending),
        sa.Index("ix_annotations_task", "project_id", "task_id"),
    )
    op.create_table(
        "labels",
        sa.Column("project_id", sa.String(64), primary_key=True),
        sa.Column("label", sa.String(64), primary_key=True),
        sa.Column("annotation_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Index("ix_labels_annotation", "project_id", "annotation_id"),
    )
