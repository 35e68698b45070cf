"""All errors that walkcut raises on purpose.

A message holds the offending value and the remedy, and may be shown to users.

    WalkcutError
    ├── SettingsError          a setting or option that cannot be used
    │   └── DamagedDatabaseError  the database's file has wrong content
    ├── ImageError             an image that cannot be loaded
    │   ├── ImageFetchError    its bytes cannot be fetched, or may not be
    │   ├── ImageDecodeError   its bytes cannot be decoded, or exceed the limits
    │   └── QuarantineError    it ended the model's process more than once
    ├── SegmentationError      input that cannot be segmented or merged
    │   ├── GranularityError   a granularity that cannot be parsed, or an edit that is impossible
    │   └── TreeFileError      a file that is no cut tree, or a damaged one
    ├── BrushError             an invalid mask or run-length code
    ├── RequestError           a request that breaks Label Studio's protocol
    ├── BusyError              no answer now: ask again later
    │   └── StoreError         a database that is unavailable or full
    ├── LabelStudioError       Label Studio is unavailable, or refuses a request
    │   └── TokenExchangeError it does not exchange a personal access token for an access token
    └── LabelConfigError       a labelling config without a control that walkcut needs
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUG = "a bug in walkcut: please report it"
API_KEY_REMEDY = (
    "set LABEL_STUDIO_API_KEY to a personal access token that is neither expired nor revoked, copied in full: three "
    "parts with dots between them"
)
_MAX_REASON = 300  # characters


def problem_text(error: Exception) -> str:
    """Return an error as one short line for users; one that walkcut does not raise on purpose is named a bug.

    >>> problem_text(KeyError("width"))
    "KeyError: 'width' (a bug in walkcut: please report it)"
    """
    text = " ".join(str(error).split())[:_MAX_REASON]
    return text if isinstance(error, WalkcutError) else f"{type(error).__name__}: {text} ({BUG})"


class WalkcutError(Exception):
    """Root of all errors raised on purpose."""


class SettingsError(WalkcutError):
    """A setting or option that cannot be used."""


class DamagedDatabaseError(SettingsError):
    """A database whose file has wrong content."""


class ImageError(WalkcutError):
    """An image that cannot be loaded."""


class ImageFetchError(ImageError):
    """An image whose bytes cannot be fetched, or may not be."""


class ImageDecodeError(ImageError):
    """An image whose bytes cannot be decoded, or exceed the limits."""


class QuarantineError(ImageError):
    """An image that ended the model's process more than once."""


class SegmentationError(WalkcutError):
    """Input that cannot be segmented or merged."""


class GranularityError(SegmentationError):
    """A granularity that cannot be parsed, or an edit that is impossible."""


class TreeFileError(SegmentationError):
    """A file that is no cut tree, or a damaged one."""


class BrushError(WalkcutError):
    """An invalid mask or run-length code."""


class RequestError(WalkcutError):
    """A request that breaks Label Studio's protocol."""


class BusyError(WalkcutError):
    """No answer is possible now: ask again later."""


class StoreError(BusyError):
    """A database that is unavailable or full."""


class LabelStudioError(WalkcutError):
    """Label Studio is unavailable, or refuses a request."""


class TokenExchangeError(LabelStudioError):
    """Label Studio, at `url`, refused to exchange a personal access token: with a `status` and perhaps a `detail`."""

    def __init__(self, url: str, status: int, detail: str) -> None:
        super().__init__(
            f"{url} answered {status} ({detail or 'without a reason'}) to the personal access token: {API_KEY_REMEDY}"
        )
        self.url, self.status, self.detail = url, status, detail


class LabelConfigError(WalkcutError):
    """A labelling config without a control that walkcut needs."""


def unusable_folder(folder: Path, reason: str) -> SettingsError:
    """Return the error for a state folder that cannot be made, read or written."""
    return SettingsError(
        f"{folder} cannot be used to keep state ({reason}): check that there is room and that walkcut may write there, "
        "or set WALKCUT_STATE_DIR to another folder"
    )


def format_reason(value: object) -> str:
    """Return a server's reason for a refusal in one line, for a message; empty for no reason."""
    return " ".join(str(value or "").split())[:_MAX_REASON]


@contextmanager
def require_extra(extra: str) -> Iterator[None]:
    """Turn an import that fails within the block into a `SettingsError` that names the extra to install."""
    try:
        yield
    except ImportError as error:
        raise SettingsError(f"{error.name} is not installed: pip install 'walkcut[{extra}]'") from error
