"""Requests of the diagnosis to Label Studio."""

import re
import ssl
import time
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import certifi
import httpx

from walkcut.errors import LabelStudioError
from walkcut.images import Deadline, LabelStudioAccess
from walkcut.images.tokens import TokenAuth

_TIMEOUT_S = 30.0  # Label Studio itself waits for each backend that is down


@dataclass(frozen=True)
class ApiResponse:
    """A response of Label Studio; `document` is `None` if its body is not JSON."""

    status: int
    document: Any = field(repr=False)
    date: datetime | None = None

    @property
    def detail(self) -> str:
        """Reason of an error, shortened to 200 characters."""
        detail = self.document.get("detail") if isinstance(self.document, dict) else None
        return " ".join(str(detail or "").split())[:200]


class LabelStudioProbe:
    """Client that reports status codes and dates instead of hiding them; it follows no redirect.

    Raises `LabelStudioError` if Label Studio cannot be reached, or does not exchange a personal access token.
    """

    def __init__(self, access: LabelStudioAccess, ca_bundle: Path | None = None) -> None:
        certificates = ssl.create_default_context(cafile=ca_bundle or certifi.where())
        self.url = access.url.rstrip("/")
        self._http = httpx.Client(timeout=_TIMEOUT_S, follow_redirects=False, verify=certificates)
        self._token = access.token
        self._auth = TokenAuth(access.token, self._exchange, time.monotonic) if access.token else None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **query: str) -> ApiResponse:
        """Get a path with the token."""
        return self._request("GET", path, headers=self._auth_headers(), params=query)

    def get_anonymously(self, path: str) -> ApiResponse:
        """Get a path without the token."""
        return self._request("GET", path)

    def server_settings(self, *names: str) -> dict[str, bool]:
        """Return these settings of the server; empty unless the token is a superuser's.

        Superusers see all settings on one page, secrets too: only those asked for are kept.
        """
        page = self._send("GET", "/version/", headers=self._auth_headers()).text
        matches = {name: re.search(rf'"{name}": "(True|False)"', page) for name in names}
        values = {name: match[1] == "True" for name, match in matches.items() if match}
        return values if len(values) == len(names) else {}

    def exchange_token(self) -> ApiResponse:
        """Exchange the personal access token for an access token."""
        return self._request("POST", "/api/token/refresh/", json={"refresh": self._token})

    def _auth_headers(self) -> dict[str, str]:
        return {"Authorization": self._auth.header(Deadline(_TIMEOUT_S))} if self._auth else {}

    def _exchange(self, _deadline: Deadline) -> str:
        response = self.exchange_token()
        if response.status != httpx.codes.OK:
            raise LabelStudioError(
                f"Label Studio at {self.url} does not exchange the token ({response.status}): see the check `token`"
            )
        return str(response.document["access"])

    def _request(self, method: str, path: str, **options: Any) -> ApiResponse:
        response = self._send(method, path, **options)
        try:
            document = response.json()
        except ValueError:
            document = None
        return ApiResponse(response.status_code, document, _parse_date(response.headers.get("Date", "")))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        try:
            return self._http.request(method, f"{self.url}{path}", **options)
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
