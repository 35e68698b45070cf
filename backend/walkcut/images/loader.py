"""Images from the configured Label Studio, or from the one that registers itself at set-up."""

import logging
import threading

from walkcut.errors import SettingsError
from walkcut.images.fetch import Fetcher
from walkcut.images.policy import FetchPolicy, LabelStudioAccess

log = logging.getLogger(__name__)


class ImageLoader:
    """Fetches images with the configured access to Label Studio, or else with the one that it registers.

    A configured token is never sent to an address from a request. Without configuration, such an address is used, with
    the token that came with it, only if `trusts_callers`: it may be private, and anybody could have sent it.
    """

    def __init__(
        self, policy: FetchPolicy, configured: LabelStudioAccess | None, *, trusts_callers: bool = False
    ) -> None:
        self._policy, self._configured, self._trusts_callers = policy, configured, trusts_callers
        self._access, self._fetcher = configured, Fetcher(policy, configured)
        self._lock = threading.Lock()

    def fetch(self, reference: object, task_id: int | None = None) -> bytes:
        """Fetch an image as `Fetcher.fetch` does."""
        return self._fetcher.fetch(reference, task_id)

    def register_label_studio(self, hostname: str, token: str) -> None:
        """Take over the address and the token that Label Studio sends at set-up.

        A configured Label Studio gains the address as an alias; without one, both are used as they are. Values that
        are no address, and those of untrusted callers, are logged and ignored.
        """
        try:
            access = self._registered(hostname, token)
        except SettingsError as error:
            log.info("Label Studio's own address was not used: %s", error)
            return
        with self._lock:
            if access != self._access:
                self._access, self._fetcher = access, Fetcher(self._policy, access)

    def _registered(self, hostname: str, token: str) -> LabelStudioAccess:
        if self._configured is not None:
            return LabelStudioAccess(self._configured.url, self._configured.token, (hostname,))
        if not self._trusts_callers:
            raise SettingsError(
                "the caller is not authenticated. Set LABEL_STUDIO_URL, or a password or token for callers."
            )
        return LabelStudioAccess(hostname, token)
