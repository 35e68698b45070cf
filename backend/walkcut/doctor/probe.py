"""Label Studio's API as a diagnosis asks it: one address, one status, one document, and the time over there."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx

from walkcut.errors import LabelStudioError, TokenExchangeError
from walkcut.images import LabelStudioAccess
from walkcut.labelstudio.connection import Connection

_Answer = TypeVar("_Answer")

_TIMEOUT = 30.0  # seconds; where backends are down, Label Studio itself waits for each of them


@dataclass(frozen=True)
class ApiResponse:
    """An answer of Label Studio's; `document` is `None` where it is no JSON."""

    status: int
    document: Any = field(repr=False)
    date: datetime | None = None

    @property
    def detail(self) -> str:
        """What it says of a refusal, in short."""
        detail = self.document.get("detail") if isinstance(self.document, dict) else None
        return " ".join(str(detail or "").split())[:200]


class Api:
    """Asks a Label Studio with the token of the settings, or without any; it follows no redirect.

    Raises `LabelStudioError` where nothing answers, or a personal access token is not exchanged.
    """

    def __init__(self, access: LabelStudioAccess, ca_bundle: Path | None = None) -> None:
        self._connection = Connection(access, timeout=_TIMEOUT, ca_bundle=ca_bundle)
        self.url = self._connection.url

    def close(self) -> None:
        """Let go of the connections."""
        self._connection.close()

    def get(self, path: str, **query: str) -> ApiResponse:
        """What it answers at a path, to whom the token stands for."""
        return self._ask(partial(self._connection.request, "GET", path, params=query))

    def get_openly(self, path: str) -> ApiResponse:
        """What it answers at a path to anybody."""
        return self._ask(partial(self._connection.request, "GET", path, anonymous=True))

    def feature_flags(self, *names: str) -> dict[str, bool]:
        """How these of its settings stand, where the token is a superuser's; else nothing.

        It shows superusers all settings, secrets too, on one page: of that no more than these is kept.
        """
        page = self._answer(partial(self._connection.request, "GET", "/version/")).text
        found = {name: re.search(rf'"{name}": "(True|False)"', page) for name in names}
        told = {name: match[1] == "True" for name, match in found.items() if match}
        return told if len(told) == len(names) else {}

    def exchange_token(self) -> None:
        """Exchange the personal access token. Raises `TokenExchangeError`."""
        self._answer(self._connection.exchange_token)

    def _ask(self, request: Callable[[], httpx.Response]) -> ApiResponse:
        try:
            answer = self._answer(request)
        except TokenExchangeError as error:
            raise LabelStudioError(
                f"Label Studio at {self.url} does not exchange the token ({error.status}): see `token`"
            ) from error
        try:
            document = answer.json()
        except ValueError:
            document = None
        return ApiResponse(answer.status_code, document, _date(answer.headers.get("Date", "")))

    def _answer(self, request: Callable[[], _Answer]) -> _Answer:
        try:
            return request()
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise LabelStudioError(
                f"Label Studio at {self.url} cannot be reached ({reason}): see that it is up, and that "
                "LABEL_STUDIO_URL is right seen from here: inside a container, localhost is the container"
            ) from error


def _date(text: str) -> datetime | None:
    """The time of a Date header (RFC 9110), if it is one."""
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None
