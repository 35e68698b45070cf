"""Authorization headers for Label Studio's legacy tokens and personal access tokens."""

import base64
import http
import json
import threading
from collections.abc import Callable
from typing import Final

from walkcut.errors import TokenExchangeError, format_reason
from walkcut.images.policy import LabelStudioAccess, is_token
from walkcut.images.transport import Deadline, Request, Response

_DEFAULT_LIFETIME: Final = 300.0  # Label Studio's own, in seconds
_NEVER_EXPIRES: Final = 1e12  # seconds since 1970
_MARGIN: Final = 60.0


class TokenAuth:
    """The Authorization header for one token: a legacy token as it is, a personal one exchanged for access tokens.

    `exchange` turns a personal access token into a short-lived access token before the deadline. Safe to share between
    threads: one exchanges, the others wait for its result.
    """

    def __init__(self, token: str, exchange: Callable[[Deadline], str], clock: Callable[[], float]) -> None:
        self._token, self._exchange, self._clock = token, exchange, clock
        self._lock = threading.Lock()
        self._header, self._renew_at = "", float("-inf")
        # Label Studio's list of tokens shows personal access tokens without their signature: copies may lack it.
        self._is_personal = jwt_claims(token).get("token_type") == "refresh"

    @property
    def kind(self) -> str:
        """The token's kind, for messages."""
        return "personal access token" if self._is_personal else "legacy token"

    def header(self, deadline: Deadline, *, refused: str = "") -> str:
        """Return the header's value, renewed if it is about to expire or is the one that Label Studio `refused`.

        Raises `TokenExchangeError`, or `TimeoutError` where another thread was exchanging the token until the deadline.
        """
        if not self._is_personal:
            return f"Token {self._token}"
        if not self._lock.acquire(timeout=deadline.remaining()):
            raise TimeoutError
        try:
            if self._clock() >= self._renew_at or self._header == refused:
                access = self._exchange(deadline)
                lifetime = _lifetime(access)
                self._renew_at = self._clock() + lifetime - min(_MARGIN, lifetime / 2)
                self._header = f"Bearer {access}"
            return self._header
        finally:
            self._lock.release()


def exchange_token(access: LabelStudioAccess, send: Callable[[Request, Deadline], Response], deadline: Deadline) -> str:
    """Exchange a personal access token for an access token, at Label Studio's `/api/token/refresh/`.

    Raises `TokenExchangeError` if Label Studio refused, or sent no access token.
    """
    url = f"{access.url.rstrip('/')}/api/token/refresh/"
    body = json.dumps({"refresh": access.token}).encode()
    response = send(Request(url, {"Content-Type": "application/json"}, "POST", body), deadline)
    document = _json_object(response.body)
    token = document.get("access")
    if response.status == http.HTTPStatus.OK and isinstance(token, str) and is_token(token):
        return token
    raise TokenExchangeError(url, response.status, format_reason(document.get("detail")))


def jwt_claims(token: str) -> dict[str, object]:
    """Return the claims of a JSON Web Token (RFC 7519) without verifying them; empty for other texts."""
    payload = f"{token}.".split(".")[1]
    try:
        return _json_object(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except ValueError:
        return {}


def _json_object(text: bytes) -> dict[str, object]:
    """Return a JSON object, or an empty one for any other text."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _lifetime(access: str) -> float:
    """Return an access token's lifetime in seconds by its own claims: Label Studio's clock may differ."""
    claims = jwt_claims(access)
    issued_and_expires = claims.get("iat"), claims.get("exp")
    times = [time for time in issued_and_expires if isinstance(time, int | float) and abs(time) < _NEVER_EXPIRES]
    if len(times) == 2 and times[1] > times[0]:
        return float(times[1] - times[0])
    return _DEFAULT_LIFETIME
