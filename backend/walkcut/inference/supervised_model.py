"""The model in a supervised process, which may crash, hang or be killed without harm to the server."""

import logging
import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from walkcut.errors import BusyError, SettingsError
from walkcut.inference.model import ImageRequest
from walkcut.inference.process import ModelProcess, ProcessEndedError
from walkcut.inference.queue import shutting_down
from walkcut.storage.quarantine import Quarantine
from walkcut.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

_ATTEMPTS = 2
_RESTART_PAUSE_S = 10.0  # after a restart that failed


class SupervisedModel:
    """A `TreeModel` in a process that is replaced when it dies or takes too long for an image.

    An image that ends the process is tried once more, and then put into quarantine. Raises `SettingsError` if the
    model cannot be loaded.
    """

    def __init__(self, start: Callable[[], ModelProcess], quarantine: Quarantine, metrics: Metrics) -> None:
        self._start = start
        self._quarantine, self._metrics = quarantine, metrics
        self._closing, self._unavailable = False, ("", 0.0)  # reason, and the time until which it holds
        self._working = threading.Lock()
        self._process = self._start()
        self._info = self._process.wait_until_loaded()
        self.version, self.preset_name = self._info.version, self._info.preset_name

    @property
    def pid(self) -> int:
        """Process id of the model's process."""
        return self._process.pid

    @property
    def unavailable_reason(self) -> str:
        """Why the model cannot be used now: it is being reloaded, or a reload has just failed. Empty when it can."""
        reason, until = self._unavailable
        return reason if time.monotonic() < until else ""

    def segment(self, request: ImageRequest) -> bytes:
        """Return the file of an image's tree. Raises as `TreeModel.segment`, `QuarantineError`, `ModelFailureError`."""
        self._quarantine.check(request.digest, self.version)
        with self._working:
            reason = ""
            for _ in range(_ATTEMPTS):
                self._ensure_running()
                try:
                    return self._request(request)
                except ProcessEndedError as error:
                    reason = str(error)
                    self._record_exit(error)
            refusal = self._quarantine.add(request.digest, self.version, reason)
            with suppress(BusyError):
                self._ensure_running()  # for the next image
            raise refusal

    def close(self) -> None:
        """End the process, even while it segments an image."""
        self._closing = True
        self._process.kill()
        with self._working:
            self._process.end()

    def _request(self, request: ImageRequest) -> bytes:
        result = self._process.segment(request)
        for name, seconds in result.seconds:
            self._metrics.record_stage(name, seconds)
        return result.file

    def _record_exit(self, error: ProcessEndedError) -> None:
        """Log and count the end of the process. Raises `BusyError` if walkcut is shutting down."""
        self._process.end()
        if self._closing:
            raise shutting_down() from error
        log.warning("%s: restarting it", error)
        self._metrics.crashes.labels(error.kind).inc()

    def _ensure_running(self) -> None:
        """Restart the process if it has ended. Raises `BusyError` if that fails."""
        if self.unavailable_reason:
            raise BusyError(f"{self.unavailable_reason}: try again")
        if self._process.is_alive:
            return
        self._unavailable = "the model is being reloaded", math.inf
        try:
            self._restart()
        except (SettingsError, OSError, EOFError) as error:  # EOFError: the process that starts it was killed too
            self._process.end()
            if self._closing:
                raise shutting_down() from error
            reason = f"the model cannot be reloaded ({error})"
            self._unavailable = reason, time.monotonic() + _RESTART_PAUSE_S
            log.warning(reason)
            raise BusyError(f"{reason}: try again") from error
        self._unavailable = "", 0.0

    def _restart(self) -> None:
        """Start a process with the same model. Raises `SettingsError`, `OSError` or `EOFError`."""
        self._process.end()
        self._process = self._start()
        if self._closing:
            self._process.kill()
        if self._process.wait_until_loaded() != self._info:
            raise SettingsError("the model's files have changed since walkcut started: restart walkcut")
