"""Label Studio's two kinds of token, and the header that each needs."""

import base64
import json
import threading
from collections.abc import Callable
from typing import Final

from walkcut.images.transport import Deadline

_DEFAULT_LIFETIME: Final = 300.0  # Label Studio's own, in seconds
_FAR: Final = 1e12  # seconds since 1970
_MARGIN: Final = 60.0


class TokenAuth:
    """The Authorization header for one token: as it is if legacy, exchanged for short-lived ones if personal.

    `send` turns a personal access token into an access token before the deadline. Safe to share between threads:
    one exchanges, the others wait for what it gets.
    """

    def __init__(self, token: str, send: Callable[[Deadline], str], clock: Callable[[], float]) -> None:
        self._token = token
        self._exchange = send
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
            ImageFetchError: the token could not be exchanged.
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


def jwt_claims(token: str) -> dict[str, object]:
    """What a JSON Web Token (RFC 7519) says, unverified: that is Label Studio's part. Empty for other texts."""
    _, _, rest = token.partition(".")
    payload = rest.partition(".")[0]
    try:
        claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def _lifetime(access: str) -> float:
    """Seconds that an access token lives by its own account, which needs no common clock with Label Studio."""
    claims = jwt_claims(access)
    issued, expires = claims.get("iat"), claims.get("exp")
    times = [each for each in (issued, expires) if isinstance(each, int | float) and abs(each) < _FAR]
    if len(times) == 2 and times[1] > times[0]:
        return float(times[1] - times[0])
    return _DEFAULT_LIFETIME
