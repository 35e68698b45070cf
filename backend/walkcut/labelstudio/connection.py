"""HTTP requests to Label Studio, with the token of the settings."""

import ssl
import time
from collections.abc import Mapping
from pathlib import Path

import certifi
import httpx

from walkcut.images import Deadline, LabelStudioAccess
from walkcut.images.tokens import TokenAuth, exchange_token
from walkcut.images.transport import Request, Response


class Connection:
    """Requests to one Label Studio as the user of a token; safe to share between threads.

    Redirects are not followed: the token is for this address alone. `timeout` limits, in seconds, each wait for the
    connection or for data.
    """

    def __init__(self, access: LabelStudioAccess, *, timeout: float = 30.0, ca_bundle: Path | None = None) -> None:
        certificates = ssl.create_default_context(cafile=ca_bundle or certifi.where())
        self.url, self.timeout, self._access = access.url.rstrip("/"), timeout, access
        self._http = httpx.Client(timeout=timeout, follow_redirects=False, verify=certificates)
        self._auth = TokenAuth(access.token, self.exchange_token, time.monotonic) if access.token else None

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        json: object = None,
        files: Mapping[str, tuple[str, bytes]] | None = None,
        timeout: float | None = None,
        anonymous: bool = False,
    ) -> httpx.Response:
        """Send a request, with the token unless `anonymous`, and return the response of any status.

        Raises `httpx.HTTPError`, `TokenExchangeError`, or `TimeoutError` where another thread exchanges the token.
        """
        headers = (
            {} if self._auth is None or anonymous else {"Authorization": self._auth.header(Deadline(self.timeout))}
        )
        wait = timeout or self.timeout
        return self._http.request(
            method, f"{self.url}{path}", params=params, json=json, files=files, headers=headers, timeout=wait
        )

    def exchange_token(self, deadline: Deadline | None = None) -> str:
        """Exchange the personal access token for an access token. Raises `TokenExchangeError`, `httpx.HTTPError`."""
        return exchange_token(self._access, self._send, deadline or Deadline(self.timeout))

    def _send(self, request: Request, _deadline: Deadline) -> Response:
        response = self._http.request(request.method, request.url, content=request.body, headers=dict(request.headers))
        return Response(response.status_code, response.headers.get("Location"), response.content)
