"""Checks of Label Studio: address, release, clock, token and SSRF protection; and the client for them."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx

from walkcut.doctor.checks import Finding
from walkcut.errors import API_KEY_REMEDY, LabelStudioError, TokenExchangeError, format_reason
from walkcut.images import LabelStudioAccess
from walkcut.images.tokens import jwt_claims
from walkcut.labelstudio.connection import Connection

ALLOW_PRIVATE = "start Label Studio with USE_DEFAULT_BANNED_SUBNETS=false"

_TIMEOUT_S = 30.0  # Label Studio itself waits for each backend that is down
_MIN_RELEASE, _TESTED_RELEASE = (1, 8), "1.23"
_MAX_CLOCK_DIFFERENCE_S = 3.0  # a Date header has whole seconds
_NEW_KEY_REMEDY = (
    f"create a personal access token in Label Studio (Account & Settings > Personal Access Token), and {API_KEY_REMEDY}"
)
_DISABLED = "disabled for this organization"  # in Label Studio's reason for refusing a legacy token


@dataclass(frozen=True)
class ApiResponse:
    """A response of Label Studio; `document` is `None` if its body is not JSON."""

    status: int
    document: Any = field(repr=False)
    text: str = field(repr=False)
    date: str

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

    def get(self, path: str, query: Mapping[str, str] | None = None, *, anonymous: bool = False) -> ApiResponse:
        """Get a path, with the token unless `anonymous`."""
        try:
            with self._reaching():
                response = self._connection.request("GET", path, params=query, anonymous=anonymous)
        except TokenExchangeError as error:
            raise LabelStudioError(
                f"Label Studio at {self.url} does not exchange the token ({error.status}): see the check `token`"
            ) from error
        try:
            document = response.json()
        except ValueError:
            document = None
        return ApiResponse(response.status_code, document, response.text, response.headers.get("Date", ""))

    def exchange_token(self) -> None:
        """Exchange the personal access token for an access token. Raises `TokenExchangeError`."""
        with self._reaching():
            self._connection.exchange_token()

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except httpx.HTTPError as error:
            reason = str(error) or type(error).__name__
            raise LabelStudioError(
                f"Label Studio at {self.url} cannot be reached ({reason}): check that it runs, and that "
                "LABEL_STUDIO_URL is its address as seen from here: inside a container, localhost is the container"
            ) from error


def check_address(probe: LabelStudioProbe, now: datetime) -> Iterator[Finding]:
    """Check that a supported Label Studio answers, and its clock. Raises `LabelStudioError`."""
    response = probe.get("/api/version/", anonymous=True)
    release = response.document.get("release") if isinstance(response.document, dict) else None
    if response.status in range(300, 400):
        raise LabelStudioError(f"{probe.url} redirects: set LABEL_STUDIO_URL to the address that it redirects to")
    if not release:
        raise LabelStudioError(
            f"the server at {probe.url} is not Label Studio (status {response.status} at /api/version/): "
            "set LABEL_STUDIO_URL to Label Studio's address, including its path if it has one"
        )
    yield Finding("address", "ok", f"Label Studio {release} answers at {probe.url}")
    if tuple(int(digits) for digits in re.findall(r"\d+", str(release))[:2]) < _MIN_RELEASE:
        message = f"this release is older than {'.'.join(map(str, _MIN_RELEASE))}"
        yield Finding("address", "warning", message, f"upgrade: walkcut is tested with {_TESTED_RELEASE}")
    with suppress(ValueError):  # a malformed Date header (RFC 9110)
        yield check_clock(parsedate_to_datetime(response.date), now)


def check_clock(label_studio: datetime, local_time: datetime) -> Finding:
    """Measure how far Label Studio's clock is off. walkcut compares no times of the two; readers of their logs do."""
    difference = (label_studio - local_time).total_seconds()
    if abs(difference) <= _MAX_CLOCK_DIFFERENCE_S:
        return Finding("clock", "ok", "Label Studio's clock agrees with this machine's")
    direction = "ahead of" if difference > 0 else "behind"
    message = f"Label Studio's clock is {abs(difference):.0f} s {direction} this machine's"
    remedy = "synchronise both by NTP: walkcut does not mind, but times in the two logs differ"
    return Finding("clock", "warning", message, remedy)


def token_kind(token: str) -> str:
    """Return "personal access token", "access token" (which expires after 5 minutes) or "legacy token"."""
    kinds = {"refresh": "personal access token", "access": "access token"}
    return kinds.get(str(jwt_claims(token).get("token_type")), "legacy token")


def check_token(probe: LabelStudioProbe, token: str, now: datetime) -> Iterator[Finding]:
    """Check that Label Studio accepts the token. Raises `LabelStudioError`."""
    if not token:
        message = "no token is set: walkcut can neither load uploaded images nor read annotations"
        yield Finding("token", "warning", message, _NEW_KEY_REMEDY)
        return
    kind = token_kind(token)
    if kind == "access token":
        yield Finding("token", "error", "this is an access token, which expires after 5 minutes", _NEW_KEY_REMEDY)
    elif kind == "personal access token" and (defect := _visible_defect(token, now) or _exchange_error(probe)):
        yield Finding("token", "error", f"the personal access token {defect}", _NEW_KEY_REMEDY)
    else:
        yield _check_acceptance(probe, kind)


def _visible_defect(token: str, now: datetime) -> str:
    """Return what is wrong with a personal access token by its text alone; empty if nothing is."""
    expires = jwt_claims(token).get("exp")
    if isinstance(expires, int | float) and expires < now.timestamp():
        return "has expired"
    if token.count(".") != 2 or token.endswith("."):
        return "lacks its third part: Label Studio shows all of it only when it is created, not in its list of tokens"
    return ""


def _exchange_error(probe: LabelStudioProbe) -> str:
    """Return why a personal access token cannot be exchanged for an access token; empty if it can."""
    try:
        probe.exchange_token()
    except TokenExchangeError as error:
        if error.status == httpx.codes.NOT_FOUND:
            return "cannot be used: this Label Studio supports legacy tokens only"
        reason = error.detail or "no reason given"
        return f"is refused ({error.status}: {reason}): it is revoked, incomplete, or of another Label Studio"
    return ""


def _check_acceptance(probe: LabelStudioProbe, kind: str) -> Finding:
    response = probe.get("/api/current-user/whoami")
    if response.status == httpx.codes.OK and isinstance(response.document, dict):
        return Finding("token", "ok", f"the {kind} of {response.document.get('email')} is accepted")
    if _DISABLED in response.detail:
        remedy = f"{_NEW_KEY_REMEDY}; or allow legacy tokens (Organization > Access Token Settings)"
        return Finding("token", "error", "legacy tokens are disabled in Label Studio, as they are by default", remedy)
    return Finding("token", "error", f"the {kind} is refused ({response.status}: {response.detail})", _NEW_KEY_REMEDY)


def check_ssrf_protection(probe: LabelStudioProbe) -> Iterator[Finding]:
    """Check whether Label Studio may reach private addresses. Raises `LabelStudioError`."""
    page = probe.get("/version/").text  # a superuser's shows all settings, secrets too
    names = ("USE_DEFAULT_BANNED_SUBNETS", "ML_BLOCK_LOCAL_IP", "SSRF_PROTECTION_ENABLED")
    values = [match[1] == "True" for name in names if (match := re.search(rf'"{name}": "(True|False)"', page))]
    if len(values) < len(names):
        message = "only superusers see which addresses Label Studio refuses; for walkcut at a private address"
        yield Finding("ssrf", "ok", f"{message}, {ALLOW_PRIVATE}")
        return
    bans_subnets, blocks_models, blocks_webhooks = values
    if not bans_subnets or not (blocks_models or blocks_webhooks):
        yield Finding("ssrf", "ok", "Label Studio may reach private addresses")
    elif not blocks_models:
        message = "Label Studio may predict with a backend at a private address, but sends it no webhooks"
        yield Finding("ssrf", "warning", f"{message} (only ML_BLOCK_LOCAL_IP is off)", ALLOW_PRIVATE)
    else:
        message = "Label Studio refuses backends at private addresses, such as localhost and containers"
        yield Finding("ssrf", "warning", message, f"unless walkcut has a public address, {ALLOW_PRIVATE}")
