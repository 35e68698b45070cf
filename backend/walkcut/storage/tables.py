"""The tables of the projects' database. A change here needs a revision in `migrations`; a test compares the two."""

import json
import secrets
import zlib
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


class _CompressedJson(TypeDecorator[Any]):
    """JSON, compressed: the masks of an annotation often take megabytes."""

    impl = sa.LargeBinary
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: sa.Dialect) -> bytes:  # noqa: ARG002
        return zlib.compress(json.dumps(value).encode(), level=1)

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> Any:  # noqa: ARG002
        return json.loads(zlib.decompress(value))


PROJECTS = sa.Table(
    "projects",
    METADATA,
    sa.Column("project_id", sa.String(64), primary_key=True),
    # When Label Studio created it, in seconds since 1970, 0 if unknown: its id is that of one Label Studio only.
    sa.Column("created", sa.BigInteger, nullable=False, default=0),
    sa.Column("extra_params", _Json, nullable=False, default=dict),
    sa.Column("label_config", sa.Text, nullable=False, default=""),
    sa.Column("versions", _Json, nullable=False, default=list),  # model versions of the last set-up
    sa.Column("learning", sa.Boolean, nullable=False, default=True),
    # Grows with each change of the feedback, from a random number: another database has other revisions.
    sa.Column("revision", sa.BigInteger, nullable=False, default=lambda: secrets.randbits(48)),
)
# Times are Label Studio's, but for `due`: seconds since 1970 of the next attempt to learn, 0 at once, NULL for none.
ANNOTATIONS = sa.Table(
    "annotations",
    METADATA,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("annotation_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("task_id", sa.BigInteger, nullable=False),
    sa.Column("updated", sa.DateTime(timezone=True), nullable=False),
    sa.Column("learned_updated", sa.DateTime(timezone=True)),  # the state that the feedback is from
    sa.Column("disabled_updated", sa.DateTime(timezone=True)),  # the last state whose feedback does not count
    sa.Column("segmenter_version", sa.Text, nullable=False, default=""),  # that the feedback is from
    sa.Column("is_offered", sa.Boolean, nullable=False, default=False),  # its merged segments were offered
    sa.Column("attempts", sa.Integer, nullable=False, default=0),
    sa.Column("due", sa.Float(53)),
    sa.Column("reserved", sa.Float(53), nullable=False, default=0.0),  # when the last attempt was, as `due`
    sa.Column("problem", sa.Text, nullable=False, default=""),  # of the last attempt
    sa.Column("feedback", _Json, nullable=False, default=dict),
    sa.Column("submission", _CompressedJson, nullable=False),
    sa.Index("ix_annotations_due", "due", sqlite_where=sa.text("due NOTNULL"), postgresql_where=sa.text("due NOTNULL")),
    sa.Index("ix_annotations_task", "project_id", "task_id"),
)
LABELS = sa.Table(
    "labels",
    METADATA,
    sa.Column("project_id", sa.String(64), primary_key=True),
    sa.Column("label", sa.String(64), primary_key=True),
    sa.Column("annotation_id", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Index("ix_labels_annotation", "project_id", "annotation_id"),
)
