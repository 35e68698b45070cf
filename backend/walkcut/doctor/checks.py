"""Findings of checks; the failure of a check is a finding too."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal, ParamSpec
from urllib.parse import unquote, urlsplit

from walkcut.errors import WalkcutError
from walkcut.settings import Settings

log = logging.getLogger(__name__)

Severity = Literal["ok", "warning", "error"]
Arguments = ParamSpec("Arguments")

_MIN_SECRET = 4  # shorter ones would blank out parts of words
_BUG_REMEDY = "see whether the message helps; if not, report it with the output of `walkcut doctor`"


@dataclass(frozen=True)
class Finding:
    """Result of a check; `remedy` says what to do, and is empty when nothing is wrong."""

    check: str
    severity: Severity
    message: str
    remedy: str = ""


def run_check(
    name: str,
    failure: str,
    check: Callable[Arguments, Iterable[Finding]],
    *args: Arguments.args,
    **kwargs: Arguments.kwargs,
) -> Iterator[Finding]:
    """Yield a check's findings; an error ends it with the finding `failure`, whose remedy is the error's message."""
    try:
        yield from check(*args, **kwargs)
    except WalkcutError as error:
        yield Finding(name, "error", failure, str(error))
    except Exception as error:
        log.debug("the check %s failed", name, exc_info=error)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        yield Finding(name, "error", f"{failure}, or walkcut has a bug ({reason})", _BUG_REMEDY)


def without_secrets(finding: Finding, settings: Settings) -> Finding:
    """Return the finding with the secrets of the settings, and passwords in addresses, blanked out."""
    message, remedy = (_blank_out(text, settings) for text in (finding.message, finding.remedy))
    return replace(finding, message=message, remedy=remedy)


def _blank_out(text: str, settings: Settings) -> str:
    for secret in sorted(_secrets(settings), key=len, reverse=True):
        text = text.replace(secret, "…")
    return re.sub(r"(://[^\s/:@]*):[^\s/@]+@", r"\1:…@", text)


def _secrets(settings: Settings) -> set[str]:
    """Return the values of secret settings, and the passwords in addresses, both as written and decoded."""
    secrets = {str(getattr(settings, spec.name)) for spec in fields(Settings) if not spec.repr}
    for url in (settings.database_url, settings.label_studio_url):
        _, colon, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
        secrets |= {password, unquote(password)} if colon else set()
    return {secret for secret in secrets if len(secret) >= _MIN_SECRET}
