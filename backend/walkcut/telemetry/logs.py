"""The log as text or JSON; each line has the context that it was logged in, such as the request and the task."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from pythonjsonlogger.json import JsonFormatter

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s%(context)s"
_JSON = "{asctime}{levelname}{name}{message}"

_context: ContextVar[Mapping[str, object]] = ContextVar("context", default=MappingProxyType({}))


@contextmanager
def log_context(**fields: object) -> Iterator[None]:
    """Add fields, such as `request_id` or `task`, to every line that is logged inside, in this thread."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)


def formatter(log_format: str) -> logging.Formatter:
    """Return the formatter of a log format, "text" or "json"."""
    return _JsonLines(_JSON, style="{") if log_format == "json" else _TextLines(_TEXT)


def set_up_logging(level: str, log_format: str = "text") -> None:
    """Write lines from `level` on to stderr, as "text" or "json"."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(log_format))
    logging.basicConfig(level=level, handlers=[handler])
    for chatty in ("httpx", "alembic"):  # a line for each request, and for each step of a migration
        logging.getLogger(chatty).setLevel(logging.WARNING)


class _TextLines(logging.Formatter):
    """Lines with the context's fields at the end, in brackets."""

    def format(self, record: logging.LogRecord) -> str:
        record.context = "".join(f" [{name} {value}]" for name, value in _context.get().items())
        return super().format(record)


class _JsonLines(JsonFormatter):
    """JSON objects with the context's fields beside the others."""

    def add_fields(
        self, log_data: dict[str, object], record: logging.LogRecord, message_dict: dict[str, object]
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data.update(_context.get())
