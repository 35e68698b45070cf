"""Images that end the model's process, remembered in files so that none does it again."""

import json
import logging
from datetime import datetime, timezone
from pathlib import Path

from walkcut.errors import QuarantineError
from walkcut.storage import atomic_file

log = logging.getLogger(__name__)

_MOST = 1000  # files
_SUFFIX = ".json"


class Quarantine:
    """A folder with a file for each such image, by its digest, for one version of the segmenter.

    Whoever deletes a file has its image tried again. Beyond `most` files the oldest go.
    """

    def __init__(self, folder: Path, *, most: int = _MOST) -> None:
        self._folder, self._most = folder, most

    def check(self, digest: str, segmenter: str) -> None:
        """Raises `QuarantineError` for an image that is in here."""
        path = self._path(digest, segmenter)
        try:
            reason = str(json.loads(path.read_bytes())["reason"])
        except FileNotFoundError:
            return
        except (ValueError, LookupError, TypeError):
            reason = "the model's process ended"
        raise _refusal(reason, path)

    def add(self, digest: str, segmenter: str, reason: str) -> QuarantineError:
        """Put an image in, and say why nothing comes of it. A full disk is logged, not raised."""
        path = self._path(digest, segmenter)
        entry = {"image": digest, "reason": reason, "since": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as write:
                write(json.dumps(entry).encode())
            for oldest in sorted(self._files(), key=lambda file: file.stat().st_mtime_ns)[: -self._most]:
                oldest.unlink(missing_ok=True)
        except OSError as error:
            log.warning("the image %s was not put into quarantine: %s", digest, error)
        return _refusal(reason, path)

    def __len__(self) -> int:
        return len(self._files())

    def _files(self) -> list[Path]:
        return list(self._folder.glob(f"*{_SUFFIX}"))

    def _path(self, digest: str, segmenter: str) -> Path:
        return self._folder / f"{digest}-{segmenter}{_SUFFIX}"


def _refusal(reason: str, path: Path) -> QuarantineError:
    return QuarantineError(
        f"this image is not tried any more, since more than once {reason}: scale it down or save it in another "
        f"format; to have it tried again, delete {path}"
    )
