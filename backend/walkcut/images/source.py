"""Where pictures come from: the Label Studio of the settings, or else the one that introduces itself."""

import logging
import threading

from walkcut.errors import SettingsError
from walkcut.images.fetch import Fetcher
from walkcut.images.policy import FetchPolicy, LabelStudioAccess

log = logging.getLogger(__name__)


class PictureSource:
    """Fetches pictures with the access that was configured, or, without any, with the one that Label Studio offers.

    A configured token is never shown to an address that came from a request.
    """

    def __init__(self, policy: FetchPolicy, configured: LabelStudioAccess | None) -> None:
        self._policy, self._configured = policy, configured
        self._access, self._fetcher = configured, Fetcher(policy, configured)
        self._lock = threading.Lock()

    def fetch(self, reference: object, task_id: int | None = None) -> bytes:
        """As `Fetcher.fetch`."""
        return self._fetcher.fetch(reference, task_id)

    def introduce(self, hostname: str, token: str) -> None:
        """Take note of the address and the token that Label Studio sends at set-up.

        A configured Label Studio gains the address as an alias; without one both are used as they are. What is no
        address is left alone.
        """
        try:
            if self._configured is None:
                access = LabelStudioAccess(hostname, token)
            else:
                access = LabelStudioAccess(self._configured.url, self._configured.token, (hostname,))
        except SettingsError as error:
            log.info("Label Studio's own address was not used: %s", error)
            return
        with self._lock:
            if access != self._access:
                self._access, self._fetcher = access, Fetcher(self._policy, access)
