"""Images that ended the model's process more than once, noted in files so that they are not tried again."""

import json
import logging
from datetime import datetime, timezone
from pathlib import Path

from walkcut.errors import QuarantineError
from walkcut.storage.files import atomic_file, list_files

log = logging.getLogger(__name__)

_MAX_FILES = 1000
_SUFFIX = ".json"


class Quarantine:
    """A folder with one file for each quarantined image, by its digest and the segmenter's version.

    Deleting a file releases its image. The oldest files beyond `max_files` are deleted, whichever
    process wrote them.
    """

    def __init__(self, folder: Path, *, max_files: int = _MAX_FILES) -> None:
        self._folder, self._max_files = folder, max_files

    def check(self, digest: str, segmenter_version: str) -> None:
        """Raise `QuarantineError` if an image is in quarantine."""
        path = self._path(digest, segmenter_version)
        try:
            reason = str(json.loads(path.read_bytes())["reason"])
        except FileNotFoundError:
            return
        except (ValueError, LookupError, TypeError):
            reason = "the model's process ended"
        raise _refusal(reason, path)

    def add(self, digest: str, segmenter_version: str, reason: str) -> QuarantineError:
        """Put an image into quarantine, and return the error to raise for it. A full disk is logged, not raised."""
        path = self._path(digest, segmenter_version)
        entry = {"image": digest, "reason": reason, "since": datetime.now(timezone.utc).isoformat(timespec="seconds")}
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as write:
                write(json.dumps(entry).encode())
            for oldest in list_files(self._folder, _SUFFIX)[: -self._max_files]:
                (self._folder / oldest.name).unlink(missing_ok=True)
        except OSError as error:
            log.warning("the image %s was not put into quarantine: %s", digest, error)
        return _refusal(reason, path)

    def __len__(self) -> int:
        return sum(1 for _ in self._folder.glob(f"*{_SUFFIX}"))

    def _path(self, digest: str, segmenter_version: str) -> Path:
        return self._folder / f"{digest}-{segmenter_version}{_SUFFIX}"


def _refusal(reason: str, path: Path) -> QuarantineError:
    return QuarantineError(
        f"this image is in quarantine ({reason}, more than once): scale it down or save it in another format; to try "
        f"it again, delete {path}"
    )
