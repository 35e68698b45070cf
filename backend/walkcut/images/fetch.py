"""Image references -> bytes: from the reference itself, from disk, from Label Studio or from the web."""

import http.client
import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final
from urllib.parse import urljoin, urlsplit

import httpcore

from walkcut.errors import API_KEY_REMEDY, ImageFetchError, RequestError, SettingsError, TokenExchangeError
from walkcut.images import references
from walkcut.images.address_policy import Resolver, resolve_host
from walkcut.images.policy import FetchPolicy, LabelStudioAccess, parse_origin, redacted_reason
from walkcut.images.redact import kind_of, redact
from walkcut.images.tokens import TokenAuth, exchange_token
from walkcut.images.transport import Deadline, Request, Response, Transport

_log = logging.getLogger(__name__)

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_UNAUTHORISED: Final = (401, 403)
_LEGACY_REMEDY: Final = (
    f"{API_KEY_REMEDY}; or enable legacy tokens in the organisation's settings, where they are disabled by default"
)


class Fetcher:
    """Fetches images by reference within a policy; safe to share between threads.

    Label Studio's token is sent to its own scheme, host and port only, and there for files only. Every redirect is
    checked by the same rules as the reference itself. `clock` and `resolve` are for tests.
    """

    def __init__(
        self,
        policy: FetchPolicy,
        access: LabelStudioAccess | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        resolve: Resolver = resolve_host,
    ) -> None:
        self._policy, self._access, self._clock = policy, access, clock
        self._label_studio = parse_origin(access.url) if access else None
        self._transport = Transport(policy, self._label_studio, resolve)
        self._auth: TokenAuth | None = None
        if access and access.token:
            self._auth = TokenAuth(access.token, partial(exchange_token, access, self._transport.send), clock)

    def fetch(self, reference: object, task_id: int | None = None) -> bytes:
        """Fetch the bytes that a value of task data refers to; files of cloud storages need the task's id.

        Raises `ImageFetchError` for a reference that is of no accepted kind, is not allowed, or leads to no image.
        """
        try:
            return self._fetch(reference, task_id)
        except ImageFetchError as error:
            raise ImageFetchError(f"cannot fetch the image {redact(reference)}: {error}") from error
        except ValueError as error:
            raise ImageFetchError(
                f"cannot fetch the image {redact(reference)}: the reference is not a valid URL "
                f"({redacted_reason(error)}). {references.ACCEPTED}"
            ) from None  # whose text would be in a traceback

    def _fetch(self, reference: object, task_id: int | None) -> bytes:
        if not isinstance(reference, str):
            raise ImageFetchError(f"it is {kind_of(reference)}, not text. {references.ACCEPTED}")
        reference = references.trimmed(reference)
        data = references.read_data_url(reference, self._policy)
        if data is not None:
            return data
        path = references.label_studio_path(reference, self._access)
        data = references.read_local_file(path, self._policy)
        if data is not None:
            return data
        return self._download(references.web_address(reference, path, task_id, self._access))

    def _download(self, url: str) -> bytes:
        deadline = Deadline(self._policy.timeout, self._clock)
        for _ in range(self._policy.max_redirects + 1):
            response = self._request(url, deadline)
            if response.status == http.HTTPStatus.OK:
                return response.body
            if response.status not in _REDIRECTS or not response.location:
                raise self._refusal(url, response.status)
            url = urljoin(url, response.location)
        raise ImageFetchError(f"more than {self._policy.max_redirects} redirects, the last one to {redact(url)}.")

    def _request(self, url: str, deadline: Deadline) -> Response:
        """Request a URL as `_get` does, with a message for each failure of the network."""
        host = urlsplit(url).netloc.rpartition("@")[2]
        try:
            return self._get(url, deadline)
        except TokenExchangeError as error:
            if error.status == http.HTTPStatus.OK:
                raise ImageFetchError(
                    f"{redact(error.url)} gave no access token. Set LABEL_STUDIO_URL to a Label Studio's URL."
                ) from error
            raise self._refusal(error.url, error.status) from error
        except TimeoutError as error:
            raise ImageFetchError(
                f"{host} took longer than {self._policy.connect_timeout:g} s to connect to or "
                f"{self._policy.timeout:g} s in total: check that server, or raise WALKCUT_FETCH_TIMEOUT."
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise ImageFetchError(
                f"the certificate of {host} is not trusted ({error.verify_message}). "
                "Set WALKCUT_CA_BUNDLE to the PEM file of its authority."
            ) from error
        except (OSError, httpcore.ProtocolError) as error:
            raise ImageFetchError(
                f"{host} cannot be reached or closed the connection ({str(error) or type(error).__name__}). Check "
                "that it is up and reachable from where walkcut runs: inside a container, localhost is the container."
            ) from error

    def _get(self, url: str, deadline: Deadline) -> Response:
        """Request a URL: with the token for files of Label Studio, and once more with a new one if it is refused."""
        if self._auth is None or self._access is None or not self._access.serves_files_at(url):
            return self._transport.send(Request(url), deadline)
        header = self._auth.header(deadline)
        response = self._transport.send(Request(url, {"Authorization": header}), deadline)
        if response.status != http.HTTPStatus.UNAUTHORIZED:
            return response
        renewed = self._auth.header(deadline, refused=header)
        if renewed == header:
            return response
        return self._transport.send(Request(url, {"Authorization": renewed}), deadline)

    def _refusal(self, url: str, status: int) -> ImageFetchError:
        """Return an error with the server's status and a remedy."""
        answered = f"{redact(url)} answered {status} {http.client.responses.get(status, '')}".rstrip()
        is_label_studio = parse_origin(url) == self._label_studio
        if status in _UNAUTHORISED and is_label_studio:
            kind = self._auth.kind if self._auth else ""
            credentials = f" to the {kind}, or its user may not see the project" if kind else " without a token"
            remedy = _LEGACY_REMEDY if kind == "legacy token" else API_KEY_REMEDY
            return ImageFetchError(f"{answered}{credentials}: {remedy}.")
        if status in _UNAUTHORISED:
            reason = f" Label Studio's token is sent to {self._access.url} only." if self._access else ""
            return ImageFetchError(f"{answered}. Make the image public, or sign its URL again.{reason}")
        if status == http.HTTPStatus.NOT_FOUND and is_label_studio:
            return ImageFetchError(
                f"{answered}. For files of local or cloud storages, connect the storage to the project in Label Studio."
            )
        return ImageFetchError(f"{answered}. Open the URL in a browser, or look into that server's log.")


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
        are no address, and those of untrusted callers, are logged and ignored. Raises `RequestError` for a second
        address without a configured one: files and tasks of two Label Studios have the same names.
        """
        configured = self._configured
        if configured is None and not self._trusts_callers:
            _log.info(
                "Label Studio's own address was not used: the caller is not authenticated. "
                "Set LABEL_STUDIO_URL, or a password or token for callers."
            )
            return
        try:
            access = replace(configured, aliases=(hostname,)) if configured else LabelStudioAccess(hostname, token)
        except SettingsError as error:
            _log.info("Label Studio's own address was not used: %s", error)
            return
        with self._lock:
            known = self._access
            if known is not None and configured is None and access.address != known.address:
                raise RequestError(
                    f"walkcut already serves the Label Studio at {redact(known.url)}, and {redact(access.url)} is "
                    "another one: start another walkcut for it, with its own WALKCUT_STATE_DIR and port; if it is the "
                    "same under a new address, restart walkcut, or set LABEL_STUDIO_URL"
                )
            if known is not None and known.aliases and access.aliases != known.aliases:
                _log.warning(
                    "a second Label Studio? Its address is %s, and was %s; images are fetched from LABEL_STUDIO_URL",
                    redact(hostname),
                    redact(known.aliases[0]),
                )
            if access != known:
                self._access, self._fetcher = access, Fetcher(self._policy, access)
