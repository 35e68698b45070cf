"""Label Studio's API as a diagnosis asks it: one address, one status, one document, and the time over there."""

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
        certificates = ssl.create_default_context(cafile=ca_bundle or certifi.where())
        self.url = access.url.rstrip("/")
        self._http = httpx.Client(timeout=_TIMEOUT, follow_redirects=False, verify=certificates)
        self._token = access.token
        self._authorization = TokenAuth(access.token, self._exchange, time.monotonic) if access.token else None

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def get(self, path: str, **query: str) -> ApiResponse:
        """What it answers at a path, to whom the token stands for."""
        return self._ask("GET", path, headers=self._headers(), params=query)

    def get_openly(self, path: str) -> ApiResponse:
        """What it answers at a path to anybody."""
        return self._ask("GET", path)

    def feature_flags(self, *names: str) -> dict[str, bool]:
        """How these of its settings stand, where the token is a superuser's; else nothing.

        It shows superusers all settings, secrets too, on one page: of that no more than these is kept.
        """
        page = self._answer("GET", "/version/", headers=self._headers()).text
        found = {name: re.search(rf'"{name}": "(True|False)"', page) for name in names}
        told = {name: match[1] == "True" for name, match in found.items() if match}
        return told if len(told) == len(names) else {}

    def exchanged(self) -> ApiResponse:
        """What it answers to a personal access token that is to be exchanged."""
        return self._ask("POST", "/api/token/refresh/", json={"refresh": self._token})

    def _headers(self) -> dict[str, str]:
        return {"Authorization": self._authorization.header(Deadline(_TIMEOUT))} if self._authorization else {}

    def _exchange(self, _deadline: Deadline) -> str:
        said = self.exchanged()
        if said.status != httpx.codes.OK:
            raise LabelStudioError(
                f"Label Studio at {self.url} does not exchange the token ({said.status}): see `token`"
            )
        return str(said.document["access"])

    def _ask(self, method: str, path: str, **more: Any) -> ApiResponse:
        answer = self._answer(method, path, **more)
        try:
            document = answer.json()
        except ValueError:
            document = None
        return ApiResponse(answer.status_code, document, _date(answer.headers.get("Date", "")))

    def _answer(self, method: str, path: str, **more: Any) -> httpx.Response:
        try:
            return self._http.request(method, f"{self.url}{path}", **more)
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
