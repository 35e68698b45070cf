"""One HTTP exchange with an address that was checked, in bounded time and memory.

`http.client` takes a socket that is connected already: so the address that is asked is the one that was checked,
whatever the name resolves to a moment later (DNS rebinding), and every read is held to one deadline, also of
headers that drip in byte by byte. Neither environment variables nor ~/.netrc have a say.
"""

import http
import http.client
import io
import ipaddress
import socket
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, urlsplit

import certifi

from walkcut.errors import ImageFetchError
from walkcut.images.policy import FetchPolicy, Origin, origin

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[Address]]

_CHUNK: Final = 65536
_MOST_ADDRESSES: Final = 8  # tried of one host
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: IPv4 addresses on IPv6-only networks
_INTERNET: Final = ipaddress.IPv6Network("2000::/3")  # RFC 4291: all that was ever assigned of global unicast
_NOT_PUBLIC: Final = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("192.88.99.0/24"))  # RFC 6890, 7526
_METADATA: Final = tuple(  # where clouds tell a machine its secrets
    map(
        ipaddress.ip_network,
        (
            "169.254.0.0/16",  # most of them, and fe80::a9fe:a9fe in OpenStack
            "fe80::a9fe:a9fe/128",
            "fd00:ec2::254/128",  # Amazon
            "fd20:ce::254/128",  # Google
            "168.63.129.16/32",  # Azure, a public address
            "100.100.100.200/32",  # Alibaba
            "192.0.0.192/32",  # Oracle
        ),
    )
)
_URL_CHARACTERS: Final = "%/:=&?~#+!$,;'@()*[]"  # beside letters and digits; an existing %20 stays as it is


class Deadline:
    """A moment, and the clock that tells how far away it is."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at = clock() + seconds

    @property
    def passed(self) -> bool:
        """Whether it is over."""
        return self._clock() >= self._at

    def remaining(self) -> float:
        """Seconds that are left, more than 0.

        Raises:
            TimeoutError: the deadline has passed.
        """
        left = self._at - self._clock()
        if left <= 0:
            raise TimeoutError
        return left


@dataclass(frozen=True)
class Request:
    """What is asked of a web server. The headers may hold a token: not to be printed."""

    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    method: str = "GET"
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Response:
    """A web server's answer; the body of an answer other than 200 is not read."""

    status: int
    location: str | None
    body: bytes


def resolve_host(host: str, port: int) -> Sequence[Address]:
    """The addresses of a host, in the system's order of preference."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))


def is_public(address: Address) -> bool:
    """Tell whether an address belongs to the open internet, also where it wraps one of IPv4."""
    address = _unwrapped(address)
    if isinstance(address, ipaddress.IPv6Address):
        return address in _INTERNET and address.is_global
    known = not is_metadata(address) and not any(address in network for network in _NOT_PUBLIC)
    return known and address.is_global and not address.is_multicast


def is_metadata(address: Address) -> bool:
    """Tell whether an address is one at which clouds hand out credentials: no image is there."""
    address = _unwrapped(address)
    return any(address in network for network in _METADATA)


def _unwrapped(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for: mapped, compatible, of 6to4 or NAT64; else the address."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    last = int(address) & 0xFFFFFFFF
    if address in _NAT64 or (last > 1 and int(address) == last):
        return ipaddress.IPv4Address(last)
    return address.ipv4_mapped or address.sixtofour or address


class Transport:
    """Makes HTTP requests by a policy; the `trusted` origin may have a private address. Safe to share by threads."""

    def __init__(self, policy: FetchPolicy, *, trusted: Origin | None, resolve: Resolver = resolve_host) -> None:
        self._policy = policy
        self._trusted = trusted
        self._resolve = resolve
        self._tls = ssl.create_default_context(cafile=policy.ca_bundle or certifi.where())

    def send(self, request: Request, deadline: Deadline) -> Response:
        """Send a request and read the answer; to follow a redirect is the caller's part.

        Raises:
            ImageFetchError: the host's address is not allowed, or the body is too large or compressed.
            OSError, http.client.HTTPException, ValueError: the network, the server or the URL is at fault.
        """
        place, parts = origin(request.url), urlsplit(request.url)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"User-Agent": "walkcut", "Connection": "close", **request.headers}
        with self._connect(place, deadline) as connected:
            connection = self._connection(place)
            connection.sock = _TimedSocket(connected, deadline)
            connection.request(request.method, quote(target, _URL_CHARACTERS), request.body, headers)
            response = connection.getresponse()
            body = self._body(response) if response.status == http.HTTPStatus.OK else b""
            return Response(response.status, response.getheader("Location"), body)

    def _connection(self, place: Origin) -> http.client.HTTPConnection:
        if place.scheme == "https":
            return http.client.HTTPSConnection(place.host, place.port, context=self._tls)
        return http.client.HTTPConnection(place.host, place.port)

    def _connect(self, place: Origin, deadline: Deadline) -> socket.socket:
        """Connect to an allowed address of a host; its certificate, if any, is still checked against the name."""
        self._check_host(place)
        addresses = self._resolve(place.host, place.port)[:_MOST_ADDRESSES]
        for address in addresses:
            self._check_address(place, address)
        connected = self._connect_first(addresses, place.port, deadline)
        if place.scheme == "http":
            return connected
        return self._tls.wrap_socket(connected, server_hostname=place.host)

    def _connect_first(self, addresses: Sequence[Address], port: int, deadline: Deadline) -> socket.socket:
        """Connect to the first address that answers: localhost may stand for ::1, where nobody listens, too."""
        timeout = min(self._policy.connect_timeout, deadline.remaining())
        try:
            return socket.create_connection((str(addresses[0]), port), timeout)
        except OSError:
            if len(addresses) == 1:
                raise
            return self._connect_first(addresses[1:], port, deadline)

    def _is_named(self, place: Origin) -> bool:
        """Whether a place was named by whoever runs walkcut."""
        return place == self._trusted or self._policy.names(place)

    def _check_host(self, place: Origin) -> None:
        """Whether images may come from a host at all."""
        if self._policy.only_allowed_hosts and not self._is_named(place):
            raise ImageFetchError(
                f"{place.host!r} is not among the hosts that images may come from: name it in WALKCUT_ALLOWED_HOSTS."
            )

    def _check_address(self, place: Origin, address: Address) -> None:
        """Whether images may come from a host at this address."""
        if self._is_named(place):
            return
        if is_metadata(address):
            raise ImageFetchError(
                f"{place.host}:{place.port} is at {address}, where clouds keep their machines' credentials. "
                "If images are there all the same, name the host in WALKCUT_ALLOWED_HOSTS."
            )
        if not (self._policy.allow_private_hosts or is_public(address)):
            raise ImageFetchError(
                f"{place.host}:{place.port} is at {address}, which is no public address. If this host's images "
                "may be fetched, name it in WALKCUT_ALLOWED_HOSTS; WALKCUT_ALLOW_PRIVATE_HOSTS=true allows all."
            )

    def _body(self, response: http.client.HTTPResponse) -> bytes:
        encoding = response.getheader("Content-Encoding", "identity")
        if encoding != "identity":
            raise ImageFetchError(f"its host sends it compressed ({encoding}). Store the image without {encoding}.")
        declared = response.length or 0
        self._policy.check_bytes(declared)
        body = bytearray()
        while not declared or len(body) < declared:
            chunk = response.read1(_CHUNK)
            if not chunk:
                break
            body += chunk
            self._policy.check_bytes(len(body))
        if len(body) < declared:
            raise http.client.IncompleteRead(bytes(body), declared - len(body))
        return bytes(body)


class _TimedSocket(io.RawIOBase):
    """What http.client needs of a socket, with every read and write held to one deadline."""

    def __init__(self, connected: socket.socket, deadline: Deadline) -> None:
        self._socket = connected
        self._deadline = deadline

    def sendall(self, data: bytes) -> None:
        self._socket.settimeout(self._deadline.remaining())
        self._socket.sendall(data)

    def redacted_reason(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._socket.settimeout(self._deadline.remaining())
        return self._socket.recv_into(buffer)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self)

    def close(self) -> None:
        """Do nothing: http.client closes before the body is read, and the socket has an owner who closes it."""
