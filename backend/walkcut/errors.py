"""Every error that walkcut raises on purpose.

Messages hold the offending value and the remedy, and are fit to be shown to a user.

    WalkcutError
    ├── SettingsError          a setting or option that cannot be used
    ├── ImageError             an image that cannot be had
    │   ├── ImageFetchError    its bytes cannot be fetched, or may not be
    │   ├── ImageDecodeError   its bytes are no image that walkcut reads
    │   └── QuarantineError    it has ended the model's process more than once
    ├── SegmentationError      evidence or numbers that no segmentation can be made of
    │   ├── GranularityError   a granularity that nobody understands
    │   └── TreeFileError      a file that is no cut tree
    ├── BrushError             a mask or run-length code out of the format
    ├── RequestError           a request that breaks Label Studio's protocol
    ├── BusyError              an answer that cannot be had now, but may be when it is asked for again
    │   └── StoreError         a database that cannot be reached, or has no room
    ├── LabelStudioError       a Label Studio that cannot be asked, or refuses
    │   └── TokenExchangeError a personal access token that it does not exchange for an access token
    └── LabelConfigError       a labelling config without what walkcut needs
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class WalkcutError(Exception):
    """Root of all errors raised on purpose."""


class SettingsError(WalkcutError):
    """A setting or option that cannot be used."""


class ImageError(WalkcutError):
    """An image that cannot be had."""


class ImageFetchError(ImageError):
    """An image's bytes cannot be fetched, or may not be."""


class ImageDecodeError(ImageError):
    """Bytes that are no image walkcut reads, or one beyond its limits."""


class QuarantineError(ImageError):
    """An image that has ended the model's process more than once."""


class SegmentationError(WalkcutError):
    """Evidence or numbers that no segmentation can be made of."""


class GranularityError(SegmentationError):
    """A granularity that nobody understands."""


class TreeFileError(SegmentationError):
    """A file that is no cut tree, or a damaged one."""


class BrushError(WalkcutError):
    """A mask or run-length code out of the format."""


class RequestError(WalkcutError):
    """A request that breaks Label Studio's protocol."""


class BusyError(WalkcutError):
    """An answer that cannot be had now, but may be when it is asked for again."""


class StoreError(BusyError):
    """A database that cannot be reached, or has no room."""


class LabelStudioError(WalkcutError):
    """A Label Studio that cannot be asked, or refuses."""


class TokenExchangeError(LabelStudioError):
    """Label Studio, at `url`, did not exchange a personal access token: it answered `status` and, if any, `detail`."""

    def __init__(self, url: str, status: int, detail: str) -> None:
        super().__init__(url, status, detail)
        self.url, self.status, self.detail = url, status, detail

    def __str__(self) -> str:
        return (
            f"{self.url} answered {self.status}{self.detail and f' ({self.detail})'} to the personal access token: "
            "set LABEL_STUDIO_API_KEY to one that is neither expired nor revoked, copied in full"
        )


class LabelConfigError(WalkcutError):
    """A labelling config without what walkcut needs."""


def unusable_folder(folder: Path, reason: str) -> SettingsError:
    """What to say of a state folder that cannot be made, read or written."""
    return SettingsError(
        f"{folder} cannot be used to keep state ({reason}): see that there is room and that walkcut may write there, "
        "or set WALKCUT_STATE_DIR to a folder of your own"
    )


@contextmanager
def require_extra(extra: str) -> Iterator[None]:
    """Turn an import that fails within the block into a `SettingsError` that names the extra to install."""
    try:
        yield
    except ImportError as error:
        raise SettingsError(f"{error.name} is not installed: pip install 'walkcut[{extra}]'") from error
