"""What a look at a deployment finds, and how a look is kept from ending all others."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from typing import Literal
from urllib.parse import unquote, urlsplit

from walkcut.errors import WalkcutError
from walkcut.settings import Settings

log = logging.getLogger(__name__)

Level = Literal["ok", "warning", "error"]

_SHORTEST_SECRET = 4  # a shorter one would blank out parts of words


@dataclass(frozen=True)
class Finding:
    """What a check found; `remedy` says what to do about it, and is empty where all is well."""

    check: str
    level: Level
    what: str
    remedy: str = ""


@dataclass(frozen=True)
class Check:
    """A look at one thing: its name, what is wrong where it raises `WalkcutError`, and the look itself."""

    name: str
    trouble: str
    look: Callable[[], Iterable[Finding]]

    def findings(self) -> Iterator[Finding]:
        """What the look finds; where it fails, that is a finding too, with the error's own words as the remedy."""
        try:
            yield from self.look()
        except WalkcutError as error:
            yield Finding(self.name, "error", self.trouble, str(error))
        except Exception as error:
            log.debug("the check %s failed", self.name, exc_info=error)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            yield Finding(self.name, "error", f"{self.trouble}, or this check has a defect ({reason})", _REPORT)


_REPORT = "see whether the rest of the message helps; if not, report it with the output of `walkcut doctor`"


def without_secrets(finding: Finding, settings: Settings) -> Finding:
    """The finding with every secret of the settings, and every password in an address, blanked out."""
    return replace(finding, what=_blanked(finding.what, settings), remedy=_blanked(finding.remedy, settings))


def _blanked(text: str, settings: Settings) -> str:
    for secret in sorted(_secrets(settings), key=len, reverse=True):
        text = text.replace(secret, "…")
    return re.sub(r"(://[^\s/:@]*):[^\s/@]+@", r"\1:…@", text)


def _secrets(settings: Settings) -> set[str]:
    """What may not be shown, also as parts of addresses."""
    kept = {str(getattr(settings, spec.name)) for spec in fields(Settings) if not spec.repr}
    for url in (settings.database_url, settings.label_studio_url):
        _, colon, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
        kept |= {password, unquote(password)} if colon else set()
    return {secret for secret in kept if len(secret) >= _SHORTEST_SECRET}
