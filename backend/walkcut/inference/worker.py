"""The model in a process of its own, which may crash, hang or be killed without harm to the server."""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

from walkcut.errors import BusyError, SettingsError
from walkcut.images import DecodeLimits
from walkcut.inference.process import Defect, ModelProcess, ProcessEndedError
from walkcut.inference.tree_service import Picture
from walkcut.segmentation.segmenter import Segmenter
from walkcut.storage.quarantine import Quarantine
from walkcut.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_ATTEMPTS = 2
_PAUSE_S = 10.0  # until a process is started again that could not be


class ModelDefectError(Exception):
    """A defect of walkcut that its model's process met, and told in the log."""


class ModelWorker:
    """A `Model` in a process that is replaced when it dies, or takes more than `seconds` for a picture.

    A picture that ends it is tried once more, and after that never. Raises `SettingsError` where the model cannot be
    loaded.
    """

    def __init__(
        self,
        load: Callable[[], Segmenter],
        limits: DecodeLimits,
        quarantine: Quarantine,
        metrics: Metrics,
        *,
        seconds: float,
    ) -> None:
        self._start = partial(ModelProcess, load, limits, seconds=seconds)
        self._quarantine, self._metrics = quarantine, metrics
        self._closing, self._trouble, self._trouble_until = False, "", 0.0
        self._at_work = threading.Lock()
        self._process = self._start()
        self._identity = self._process.loaded()

    @property
    def version(self) -> str:
        """The segmenter's."""
        return self._identity.version

    @property
    def method(self) -> str:
        """The name of its recipe."""
        return self._identity.method

    @property
    def pid(self) -> int:
        """The process's number in the system."""
        return self._process.pid

    @property
    def trouble(self) -> str:
        """Why the model cannot be asked now: for as long as it is being loaded again, or shall not be tried."""
        return self._trouble if time.monotonic() < self._trouble_until else ""

    def grow(self, picture: Picture) -> bytes:
        """The file of a picture's tree. Raises `QuarantineError` too, and `ModelDefectError`."""
        self._quarantine.check(picture.digest, self.version)
        with self._at_work:
            reason = ""
            for _ in range(_ATTEMPTS):
                self._revive()
                try:
                    return self._ask(picture)
                except ProcessEndedError as error:
                    reason = str(error)
                    self._bury(error)
            refusal = self._quarantine.add(picture.digest, self.version, reason)
            with suppress(BusyError):
                self._revive()  # for the next picture
            raise refusal

    def close(self) -> None:
        """End the process, also while it is at work."""
        self._closing = True
        self._process.kill()
        with self._at_work:
            self._process.end()

    def _ask(self, picture: Picture) -> bytes:
        """What the process makes of a picture, its stages measured."""
        grown = self._process.grow(picture)
        if isinstance(grown, Defect):
            raise ModelDefectError(grown.said)
        for name, seconds in grown.seconds:
            self._metrics.stages.labels(name).observe(seconds)
        return grown.file

    def _bury(self, error: ProcessEndedError) -> None:
        """Take note of the process's end. Raises `BusyError` where it was meant."""
        self._process.end()
        if self._closing:
            raise _shutting_down() from error
        log.warning("%s: it is started again", error)
        self._metrics.deaths.labels(error.kind).inc()

    def _revive(self) -> None:
        """See that there is a process. Raises `BusyError` where none can be started."""
        if self.trouble:
            raise BusyError(f"{self._trouble}: ask again")
        if self._process.is_alive:
            return
        self._tell("the model is being loaded again", float("inf"))
        try:
            self._start_again()
        except (SettingsError, OSError) as error:
            self._process.end()
            if self._closing:
                raise _shutting_down() from error
            self._tell(f"the model cannot be loaded again ({error})", time.monotonic() + _PAUSE_S)
            log.warning(self._trouble)
            raise BusyError(f"{self._trouble}: ask again") from error
        self._tell("", 0.0)

    def _start_again(self) -> None:
        """Start a process with the same model. Raises `SettingsError` or `OSError`."""
        self._process.end()
        self._process = self._start()
        if self._closing:
            self._process.kill()
        if self._process.loaded() != self._identity:
            raise SettingsError("it is not the one that walkcut began with: start walkcut again")

    def _tell(self, trouble: str, until: float) -> None:
        self._trouble, self._trouble_until = trouble, until


def _shutting_down() -> BusyError:
    return BusyError("walkcut is shutting down: ask again")
