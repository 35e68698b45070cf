"""Where images come from: the Label Studio of the settings, or else the one that introduces itself."""

import logging
import threading

from walkcut.errors import SettingsError
from walkcut.images.fetch import Fetcher
from walkcut.images.policy import FetchPolicy, LabelStudioAccess

log = logging.getLogger(__name__)


class ImageLoader:
    """Fetches images with the access that was configured, or, without any, with the one that Label Studio offers.

    A configured token is never shown to an address that came from a request. Without configuration such an address is
    taken, with its own token, only where `trusts_callers`: it may be private, and anybody could send it.
    """

    def __init__(
        self, policy: FetchPolicy, configured: LabelStudioAccess | None, *, trusts_callers: bool = False
    ) -> None:
        self._policy, self._configured, self._knows_callers = policy, configured, trusts_callers
        self._access, self._fetcher = configured, Fetcher(policy, configured)
        self._lock = threading.Lock()

    def fetch(self, reference: object, task_id: int | None = None) -> bytes:
        """As `Fetcher.fetch`."""
        return self._fetcher.fetch(reference, task_id)

    def register_label_studio(self, hostname: str, token: str) -> None:
        """Take note of the address and the token that Label Studio sends at set-up.

        A configured Label Studio gains the address as an alias; without one both are used as they are. What is no
        address is left alone, as is one from callers that nobody knows.
        """
        try:
            access = self._offered(hostname, token)
        except SettingsError as error:
            log.info("Label Studio's own address was not used: %s", error)
            return
        with self._lock:
            if access != self._access:
                self._access, self._fetcher = access, Fetcher(self._policy, access)

    def _offered(self, hostname: str, token: str) -> LabelStudioAccess:
        """The access that comes of an introduction. Raises `SettingsError` where none does."""
        if self._configured is not None:
            return LabelStudioAccess(self._configured.url, self._configured.token, (hostname,))
        if not self._knows_callers:
            raise SettingsError("anybody may have sent it. Set LABEL_STUDIO_URL, or a password or token for callers.")
        return LabelStudioAccess(hostname, token)
