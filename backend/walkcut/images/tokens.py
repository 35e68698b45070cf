"""Label Studio's two kinds of token, and the header that each needs."""

import base64
import http
import json
import threading
from collections.abc import Callable
from typing import Final

from walkcut.errors import TokenExchangeError
from walkcut.images.policy import LabelStudioAccess, is_token
from walkcut.images.transport import Deadline, Request, Response

_DEFAULT_LIFETIME: Final = 300.0  # Label Studio's own, in seconds
_FAR: Final = 1e12  # seconds since 1970
_MARGIN: Final = 60.0
_MAX_DETAIL: Final = 200  # characters of a refusal that a message quotes


class TokenAuth:
    """The Authorization header for one token: as it is if legacy, exchanged for short-lived ones if personal.

    `exchange` turns a personal access token into an access token before the deadline. Safe to share between threads:
    one exchanges, the others wait for what it gets.
    """

    def __init__(self, token: str, exchange: Callable[[Deadline], str], clock: Callable[[], float]) -> None:
        self._token = token
        self._exchange = exchange
        self._clock = clock
        self._lock = threading.Lock()
        self._header = ""
        self._renew_at = float("-inf")
        # A copy of a personal access token may lack its signature (Label Studio's list of tokens does): still one.
        self._is_personal = jwt_claims(token).get("token_type") == "refresh"

    @property
    def kind(self) -> str:
        """What to call the token in a message."""
        return "personal access token" if self._is_personal else "legacy token"

    def header(self, deadline: Deadline, *, refused: str = "") -> str:
        """The header's value, renewed where it is about to expire or is the one that Label Studio `refused`.

        Raises:
            TokenExchangeError: the token could not be exchanged.
            TimeoutError: another thread was exchanging it until the deadline.
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

    Raises:
        TokenExchangeError: Label Studio refused, or sent no access token.
    """
    url = f"{access.url.rstrip('/')}/api/token/refresh/"
    body = json.dumps({"refresh": access.token}).encode()
    response = send(Request(url, {"Content-Type": "application/json"}, "POST", body), deadline)
    document = _json_object(response.body)
    token = document.get("access")
    if response.status == http.HTTPStatus.OK and isinstance(token, str) and is_token(token):
        return token
    raise TokenExchangeError(url, response.status, " ".join(str(document.get("detail") or "").split())[:_MAX_DETAIL])


def jwt_claims(token: str) -> dict[str, object]:
    """What a JSON Web Token (RFC 7519) says, unverified: that is Label Studio's part. Empty for other texts."""
    _, _, rest = token.partition(".")
    payload = rest.partition(".")[0]
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
    """Seconds that an access token lives by its own account, which needs no common clock with Label Studio."""
    claims = jwt_claims(access)
    issued, expires = claims.get("iat"), claims.get("exp")
    times = [each for each in (issued, expires) if isinstance(each, int | float) and abs(each) < _FAR]
    if len(times) == 2 and times[1] > times[0]:
        return float(times[1] - times[0])
    return _DEFAULT_LIFETIME
