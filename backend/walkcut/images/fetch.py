"""Reference -> bytes: from the task itself, from disk, from Label Studio or from the web."""

import http
import http.client
import ssl
import time
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import urljoin, urlsplit

from walkcut.errors import ImageFetchError, TokenExchangeError
from walkcut.images import references
from walkcut.images.policy import FetchPolicy, LabelStudioAccess, origin, redacted_reason
from walkcut.images.redact import redact
from walkcut.images.tokens import TokenAuth, exchange_token
from walkcut.images.transport import Deadline, Request, Resolver, Response, Transport, resolve_host

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_UNAUTHORISED: Final = (401, 403)
_TOKEN_REMEDY: Final = {
    "": "Set LABEL_STUDIO_API_KEY to a personal access token of Label Studio.",
    "legacy token": (
        "Label Studio disables legacy tokens by default: set LABEL_STUDIO_API_KEY to a personal access token, or "
        "enable legacy tokens in the organisation's settings."
    ),
    "personal access token": (
        "Set LABEL_STUDIO_API_KEY to a personal access token that is neither expired nor revoked, copied in full: "
        "three parts with dots between, shown only once, when it is made."
    ),
}


class Fetcher:
    """Fetches images by reference within a policy; safe to share between threads.

    Label Studio's token goes to its own scheme, host and port only, and there for files only. Redirects are followed by
    hand, each held to the same rules as the reference itself. `clock` and `resolve` are for tests.
    """

    def __init__(
        self,
        policy: FetchPolicy,
        access: LabelStudioAccess | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        resolve: Resolver = resolve_host,
    ) -> None:
        self._policy = policy
        self._access = access
        self._clock = clock
        self._home = origin(access.url) if access else None
        self._transport = Transport(policy, trusted=self._home, resolve=resolve)
        self._authorization: TokenAuth | None = None
        if access and access.token:
            self._authorization = TokenAuth(access.token, partial(exchange_token, access, self._transport.send), clock)

    def fetch(self, reference: object, task_id: int | None = None) -> bytes:
        """Fetch the bytes that a value of task data refers to; files of cloud storages need the task's id.

        Raises:
            ImageFetchError: the reference is of no accepted kind, may not be followed, or leads to no image.
        """
        try:
            return self._fetch(reference, task_id)
        except ImageFetchError as error:
            raise ImageFetchError(f"cannot fetch the image {redact(reference)}: {error}") from error
        except ValueError as error:
            raise ImageFetchError(
                f"cannot fetch the image {redact(reference)}: it cannot be followed ({redacted_reason(error)}). "
                f"{references.ACCEPTED}"
            ) from error

    def _fetch(self, reference: object, task_id: int | None) -> bytes:
        if not isinstance(reference, str):
            raise ImageFetchError(f"it is a {type(reference).__name__}, no text. {references.ACCEPTED}")
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
            answer = self._ask(url, deadline)
            if answer.status == http.HTTPStatus.OK:
                return answer.body
            if answer.status not in _REDIRECTS or not answer.location:
                raise self._refusal(url, answer)
            url = urljoin(url, answer.location)
        raise ImageFetchError(f"more than {self._policy.max_redirects} redirects, at last to {redact(url)}.")

    def _ask(self, url: str, deadline: Deadline) -> Response:
        """Do as `_get`, with a message for whatever the network can do."""
        host = urlsplit(url).netloc.rpartition("@")[2]
        try:
            return self._get(url, deadline)
        except TokenExchangeError as error:
            raise self._exchange_failure(error) from error
        except TimeoutError as error:
            raise ImageFetchError(
                f"{host} took longer than {self._policy.connect_timeout:g} s to connect to or "
                f"{self._policy.timeout:g} s in all. See why, or raise WALKCUT_FETCH_TIMEOUT."
            ) from error
        except ssl.SSLCertVerificationError as error:
            raise ImageFetchError(
                f"the certificate of {host} is not trusted ({error.verify_message}). "
                "Name the PEM file of its authority in WALKCUT_CA_BUNDLE."
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise ImageFetchError(
                f"{host} cannot be reached or broke off ({str(error) or type(error).__name__}). See that it is up and "
                "can be reached from where walkcut runs: inside a container, localhost is the container."
            ) from error

    def _get(self, url: str, deadline: Deadline) -> Response:
        """Ask for a URL: for files of Label Studio with its token, which is renewed once if refused."""
        if self._authorization is None or self._access is None or not self._access.serves_files_at(url):
            return self._transport.send(Request(url), deadline)
        header = self._authorization.header(deadline)
        answer = self._transport.send(Request(url, {"Authorization": header}), deadline)
        if answer.status != http.HTTPStatus.UNAUTHORIZED:
            return answer
        renewed = self._authorization.header(deadline, refused=header)
        if renewed == header:
            return answer
        return self._transport.send(Request(url, {"Authorization": renewed}), deadline)

    def _exchange_failure(self, error: TokenExchangeError) -> ImageFetchError:
        """Say why a personal access token was not exchanged, and what can be done."""
        if error.status == http.HTTPStatus.OK:
            return ImageFetchError(
                f"{redact(error.url)} gave no access token. See that LABEL_STUDIO_URL is a Label Studio's."
            )
        return self._refusal(error.url, Response(error.status, None, b""))

    def _refusal(self, url: str, answer: Response) -> ImageFetchError:
        """Say what a server answered instead of an image, and what can be done."""
        said = f"{redact(url)} answered {answer.status} {http.client.responses.get(answer.status, '')}".rstrip()
        if answer.status in _UNAUTHORISED and origin(url) == self._home:
            kind = self._authorization.kind if self._authorization else ""
            to_whom = f" to the {kind}, or its user may not see the project" if kind else " without a token"
            return ImageFetchError(f"{said}{to_whom}. {_TOKEN_REMEDY[kind]}")
        if answer.status in _UNAUTHORISED:
            secret = f" Label Studio's token is shown to {self._access.url} only." if self._access else ""
            return ImageFetchError(f"{said}. Make the image public, or sign its address anew.{secret}")
        if answer.status == http.HTTPStatus.NOT_FOUND and origin(url) == self._home:
            return ImageFetchError(
                f"{said}. For files of a local or cloud storage, connect that storage to the project in Label Studio."
            )
        return ImageFetchError(f"{said}. Open the address in a browser, or see that server's log.")
