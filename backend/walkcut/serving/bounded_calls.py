"""Calls of the database that end in time even while it hangs."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from walkcut.errors import StoreError

Result = TypeVar("Result")


class BoundedCalls:
    """Calls that raise `StoreError` after a time limit, and at once for `pause` seconds after one that did.

    Drivers do not limit the time that a server takes to answer. A call that is given up goes on in its thread. Safe to
    share between threads.
    """

    def __init__(self, *, pause: float = 10.0) -> None:
        self._pause, self._resume = pause, 0.0

    def __call__(self, limit: float, function: Callable[..., Result], *arguments: Any) -> Result:
        """Return the result of a call that may take `limit` seconds."""
        if time.monotonic() < self._resume:
            raise StoreError("the database did not answer a moment ago: check that it is up")
        future: Future[Result] = Future()

        def run() -> None:
            try:
                future.set_result(function(*arguments))
            except BaseException as error:  # noqa: BLE001 - raised where the result is waited for
                future.set_exception(error)

        threading.Thread(target=run, name="database", daemon=True).start()
        try:
            return future.result(limit)
        except FutureTimeoutError as error:
            self._resume = time.monotonic() + self._pause
            raise StoreError(f"the database did not answer within {limit:g} s: check that it is up") from error
