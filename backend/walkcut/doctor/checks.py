"""Findings of checks; the failure of a check is a finding too."""

import logging
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal
from urllib.parse import unquote, urlsplit

from walkcut.errors import WalkcutError
from walkcut.settings import Settings

log = logging.getLogger(__name__)

Severity = Literal["ok", "warning", "error"]

_MIN_SECRET = 4  # shorter ones would blank out parts of words
_BUG_REMEDY = "see whether the message helps; if not, report it with the output of `walkcut doctor`"


@dataclass(frozen=True)
class Finding:
    """Result of a check; `remedy` says what to do: advice, or nothing, where the severity is ok."""

    check: str
    severity: Severity
    message: str
    remedy: str = ""


def run_check(name: str, failure: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield a check's findings; an error ends it with the finding `failure`, whose remedy is the error's message."""
    try:
        yield from findings
    except WalkcutError as error:
        yield Finding(name, "error", failure, str(error))
    except Exception as error:
        log.debug("the check %s failed", name, exc_info=error)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        yield Finding(name, "error", f"{failure}, or walkcut has a bug ({reason})", _BUG_REMEDY)


def without_secrets(finding: Finding, settings: Settings) -> Finding:
    """Return the finding with the settings' secrets, also decoded, and the passwords in all addresses blanked out."""
    secrets = {str(getattr(settings, spec.name)) for spec in fields(Settings) if not spec.repr}
    for url in (settings.database_url, settings.label_studio_url):
        password = urlsplit(url).netloc.rpartition("@")[0].partition(":")[2]
        secrets |= {password, unquote(password)}
    texts = [finding.message, finding.remedy]
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= _MIN_SECRET:
            texts = [text.replace(secret, "…") for text in texts]
    message, remedy = (re.sub(r"(://[^\s/:@]*):[^\s/@]+@", r"\1:…@", text) for text in texts)
    return replace(finding, message=message, remedy=remedy)
