"""Requests of the diagnosis to Label Studio."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import httpx

from walkcut.errors import LabelStudioError, TokenExchangeError, format_reason
from walkcut.images import LabelStudioAccess
from walkcut.labelstudio.connection import Connection

_Result = TypeVar("_Result")

_TIMEOUT_S = 30.0  # Label Studio itself waits for each backend that is down


@dataclass(frozen=True)
class ApiResponse:
    """A response of Label Studio; `document` is `None` if its body is not JSON."""

    status: int
    document: Any = field(repr=False)
    date: datetime | None = None

    @property
    def detail(self) -> str:
        """Reason of an error, in one line."""
        return format_reason(self.document.get("detail")) if isinstance(self.document, dict) else ""


class LabelStudioProbe:
    """Client that reports statuses and dates instead of raising errors for them.

    Raises `LabelStudioError` if Label Studio cannot be reached, or does not exchange a personal access token.
    """

    def __init__(self, access: LabelStudioAccess, ca_bundle: Path | None = None) -> None:
        self._connection = Connection(access, timeout=_TIMEOUT_S, ca_bundle=ca_bundle)
        self.url = self._connection.url

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def get(self, path: str, **query: str) -> ApiResponse:
        """Get a path with the token."""
        return self._get(partial(self._connection.request, "GET", path, params=query))

    def get_anonymously(self, path: str) -> ApiResponse:
        """Get a path without the token."""
        return self._get(partial(self._connection.request, "GET", path, anonymous=True))

    def server_settings(self, *names: str) -> dict[str, bool]:
        """Return these settings of the server; empty unless the token is a superuser's.

        Superusers see all settings on one page, secrets too: only those asked for are kept.
        """
        page = self._call(partial(self._connection.request, "GET", "/version/")).text
        matches = {name: re.search(rf'"{name}": "(True|False)"', page) for name in names}
        values = {name: match[1] == "True" for name, match in matches.items() if match}
        return values if len(values) == len(names) else {}

    def exchange_token(self) -> None:
        """Exchange the personal access token for an access token. Raises `TokenExchangeError`."""
        self._call(self._connection.exchange_token)

    def _get(self, request: Callable[[], httpx.Response]) -> ApiResponse:
        try:
            response = self._call(request)
        except TokenExchangeError as error:
            raise LabelStudioError(
                f"Label Studio at {self.url} does not exchange the token ({error.status}): see the check `token`"
            ) from error
        try:
            document = response.json()
        except ValueError:
            document = None
        return ApiResponse(response.status_code, document, _parse_date(response.headers.get("Date", "")))

    def _call(self, request: Callable[[], _Result]) -> _Result:
        try:
            return request()
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise LabelStudioError(
                f"Label Studio at {self.url} cannot be reached ({reason}): check that it runs, and that "
                "LABEL_STUDIO_URL is its address as seen from here: inside a container, localhost is the container"
            ) from error


def _parse_date(text: str) -> datetime | None:
    """Return the time of a Date header (RFC 9110), or `None` if it is malformed."""
    try:
        return parsedate_to_datetime(text)
    except ValueError:
        return None
