"""The log: set up in one place, as text or JSON, each line with the request and task that it is about."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType

from pythonjsonlogger.json import JsonFormatter

_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s%(about)s"
_JSON = "{asctime}{levelname}{name}{message}"

_about: ContextVar[Mapping[str, object]] = ContextVar("about", default=MappingProxyType({}))


@contextmanager
def log_context(**about: object) -> Iterator[None]:
    """Every line that is logged inside, in this thread, tells what it is about: `request_id`, `task` and others."""
    token = _about.set({**_about.get(), **about})
    try:
        yield
    finally:
        _about.reset(token)


def formatter(form: str) -> logging.Formatter:
    """How lines look: "text" or "json"."""
    return _JsonLines(_JSON, style="{") if form == "json" else _TextLines(_TEXT)


def set_up_logging(level: str, form: str = "text") -> None:
    """Have all lines from `level` on written to stderr, as "text" or "json"."""
    handler = logging.StreamHandler()
    handler.setFormatter(formatter(form))
    logging.basicConfig(level=level, handlers=[handler])
    logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for each request to Label Studio


class _TextLines(logging.Formatter):
    """What a line is about, behind it in brackets."""

    def format(self, record: logging.LogRecord) -> str:
        record.about = "".join(f" [{name} {value}]" for name, value in _about.get().items())
        return super().format(record)


class _JsonLines(JsonFormatter):
    """What a line is about, as fields of its own."""

    def add_fields(
        self, log_data: dict[str, object], record: logging.LogRecord, message_dict: dict[str, object]
    ) -> None:
        super().add_fields(log_data, record, message_dict)
        log_data.update(_about.get())
