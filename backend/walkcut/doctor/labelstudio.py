"""Label Studio itself: where it is, which release, what it takes for a token, what time it has, what it refuses."""

import re
from collections.abc import Iterator
from datetime import datetime

import httpx

from walkcut.doctor.checks import Finding
from walkcut.doctor.probe import Api
from walkcut.errors import LabelStudioError, TokenExchangeError
from walkcut.images.tokens import jwt_claims

_OLDEST, _TESTED = (1, 8), "1.23"
_DRIFT = 60.0  # seconds
_ANOTHER = (
    "make a personal access token in Label Studio (Account & Settings > Personal Access Token), copy it in full, "
    "three parts with dots between, and set LABEL_STUDIO_API_KEY to it"
)
SWITCH = "start Label Studio with USE_DEFAULT_BANNED_SUBNETS=false"
_DISABLED = "disabled for this organization"  # what Label Studio says of legacy tokens then


def check_address(api: Api, now: datetime) -> Iterator[Finding]:
    """Whether a Label Studio of a known release answers, and has the same time. Raises `LabelStudioError`."""
    said = api.get_openly("/api/version/")
    release = said.document.get("release") if isinstance(said.document, dict) else None
    if said.status in range(300, 400):
        raise LabelStudioError(f"{api.url} redirects: set LABEL_STUDIO_URL to the address that it redirects to")
    if not release:
        raise LabelStudioError(
            f"what answers at {api.url} is no Label Studio (status {said.status} at /api/version/): "
            "set LABEL_STUDIO_URL to its address, with the path below which it lies, if it does"
        )
    yield Finding("address", "ok", f"Label Studio {release} answers at {api.url}")
    if tuple(int(number) for number in re.findall(r"\d+", str(release))[:2]) < _OLDEST:
        oldest = ".".join(map(str, _OLDEST))
        yield Finding("address", "warning", f"it is older than {oldest}", f"upgrade: walkcut is tested with {_TESTED}")
    if said.date is not None:
        yield compare_clocks(said.date, now)


def compare_clocks(theirs: datetime, ours: datetime) -> Finding:
    """Whether Label Studio's time is ours, by and large: its access tokens live 5 minutes."""
    drift = (theirs - ours).total_seconds()
    if abs(drift) <= _DRIFT:
        return Finding("time", "ok", "its clock agrees with this machine's")
    said = f"its clock is {abs(drift):.0f} s {'ahead of' if drift > 0 else 'behind'} this machine's"
    return Finding("time", "warning", said, "set both by NTP: tokens that live 5 minutes seem to have expired")


def token_kind(token: str) -> str:
    """What to call a token: "personal access token", "access token", which lives 5 minutes, or "legacy token"."""
    kinds = {"refresh": "personal access token", "access": "access token"}
    return kinds.get(str(jwt_claims(token).get("token_type")), "legacy token")


def check_token(api: Api, token: str, now: datetime) -> Iterator[Finding]:
    """Whether Label Studio takes the token, of whatever kind; no part of it is shown. Raises `LabelStudioError`."""
    if not token:
        said = "no token is set: images uploaded to Label Studio cannot be had, nor can it be asked for annotations"
        yield Finding("token", "warning", said, _ANOTHER)
        return
    kind = token_kind(token)
    if kind == "access token":
        yield Finding("token", "error", "it is an access token, which lives 5 minutes only", _ANOTHER)
    elif kind == "personal access token" and (reason := _useless(token, now) or _not_exchanged(api)):
        yield Finding("token", "error", f"the personal access token {reason}", _ANOTHER)
    else:
        yield _accepted(api, kind)


def _useless(token: str, now: datetime) -> str:
    """What can be said against a personal access token without asking; empty where nothing can."""
    expires = jwt_claims(token).get("exp")
    if isinstance(expires, int | float) and expires < now.timestamp():
        return "has expired"
    if token.count(".") != 2 or token.endswith("."):
        return "lacks its third part, as in Label Studio's list of tokens: it is shown in full only when it is made"
    return ""


def _not_exchanged(api: Api) -> str:
    """Why a personal access token is not exchanged for an access token; empty where it is."""
    try:
        api.exchange_token()
    except TokenExchangeError as error:
        if error.status == httpx.codes.NOT_FOUND:
            return "is of no use here: this Label Studio knows legacy tokens only"
        reason = error.detail or "without a reason"
        return f"is refused ({error.status}: {reason}): revoked, of another Label Studio, or cut"
    return ""


def _accepted(api: Api, kind: str) -> Finding:
    """Whether the API knows who asks."""
    said = api.get("/api/current-user/whoami")
    if said.status == httpx.codes.OK and isinstance(said.document, dict):
        return Finding("token", "ok", f"{kind} of {said.document.get('email')}, accepted")
    if _DISABLED in said.detail:
        remedy = f"{_ANOTHER}; or allow legacy tokens (Organization > Access Token Settings)"
        return Finding("token", "error", "it is a legacy token, which Label Studio has disabled, as by default", remedy)
    return Finding("token", "error", f"the {kind} is refused ({said.status}: {said.detail})", _ANOTHER)


def check_feature_flags(api: Api) -> Iterator[Finding]:
    """Whether Label Studio reaches private addresses, which it tells superusers. Raises `LabelStudioError`."""
    told = api.feature_flags("USE_DEFAULT_BANNED_SUBNETS", "ML_BLOCK_LOCAL_IP", "SSRF_PROTECTION_ENABLED")
    if not told:
        said = "which addresses Label Studio refuses is told to superusers only"
        yield Finding("switches", "ok", f"{said}; for a backend at a private address, {SWITCH}")
        return
    bans, models, webhooks = told.values()
    if not bans or not (models or webhooks):
        yield Finding("switches", "ok", "Label Studio may reach backends at private addresses")
    elif not models:
        said = "Label Studio may reach a backend at a private address, but sends it no webhooks"
        yield Finding("switches", "warning", f"{said} (ML_BLOCK_LOCAL_IP alone is off)", SWITCH)
    else:
        said = "Label Studio refuses backends at private addresses, such as localhost and containers"
        yield Finding("switches", "warning", said, f"unless walkcut has a public address, {SWITCH}")
