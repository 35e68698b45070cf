"""Hosts and addresses that images may come from: the rules against server-side request forgery (SSRF)."""

import ipaddress
import socket
from collections.abc import Callable, Sequence
from typing import Final

from walkcut.errors import ImageFetchError
from walkcut.images.policy import FetchPolicy, Origin

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], Sequence[Address]]

_MAX_ADDRESSES: Final = 8  # per host
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")  # RFC 6052: IPv4 addresses on IPv6-only networks
_INTERNET: Final = ipaddress.IPv6Network("2000::/3")  # RFC 4291: the global unicast addresses assigned so far
_NOT_PUBLIC: Final = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("192.88.99.0/24"))  # RFC 6890, 7526
_METADATA: Final = (  # services that give a cloud machine its credentials
    ipaddress.ip_network("169.254.0.0/16"),  # most clouds; OpenStack has fe80::a9fe:a9fe too
    ipaddress.ip_network("fe80::a9fe:a9fe/128"),
    ipaddress.ip_network("fd00:ec2::254/128"),  # Amazon
    ipaddress.ip_network("fd20:ce::254/128"),  # Google
    ipaddress.ip_network("168.63.129.16/32"),  # Azure, a public address
    ipaddress.ip_network("100.100.100.200/32"),  # Alibaba
    ipaddress.ip_network("192.0.0.192/32"),  # Oracle
)


def resolve_host(host: str, port: int) -> Sequence[Address]:
    """Return the addresses of a host, in the system's order of preference."""
    entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in entries))


def is_public(address: Address) -> bool:
    """Return whether an address, or the IPv4 address embedded in it, belongs to the public internet."""
    address = _embedded_ipv4(address)
    if isinstance(address, ipaddress.IPv6Address):
        return address in _INTERNET and address.is_global
    is_reserved = is_metadata(address) or any(address in network for network in _NOT_PUBLIC)
    return not is_reserved and address.is_global and not address.is_multicast


def is_metadata(address: Address) -> bool:
    """Return whether this is an address of a cloud's metadata service, which hands out credentials."""
    address = _embedded_ipv4(address)
    return any(address in network for network in _METADATA)


def _embedded_ipv4(address: Address) -> Address:
    """Return the IPv4 address in a mapped, compatible, 6to4 or NAT64 IPv6 address; any other address unchanged."""
    if not isinstance(address, ipaddress.IPv6Address):
        return address
    low = int(address) & 0xFFFFFFFF
    if address in _NAT64 or (low > 1 and int(address) == low):
        return ipaddress.IPv4Address(low)
    return address.ipv4_mapped or address.sixtofour or address


def allowed_addresses(
    origin: Origin, policy: FetchPolicy, trusted: Origin | None, resolve: Resolver
) -> Sequence[Address]:
    """Return the first addresses of an origin's host, each of them checked; the `trusted` origin may be private.

    Raises `ImageFetchError` if images may not come from this host or one of its addresses, `OSError` if it has none.
    """
    is_configured = origin == trusted or policy.allows(origin)
    if policy.only_allowed_hosts and not is_configured:
        raise ImageFetchError(
            f"{origin.host!r} is not among the hosts that images may come from: name it in WALKCUT_ALLOWED_HOSTS."
        )
    addresses = resolve(origin.host, origin.port)[:_MAX_ADDRESSES]
    for address in () if is_configured else addresses:
        location = f"{origin.host}:{origin.port} is at {address}"
        if is_metadata(address):
            raise ImageFetchError(
                f"{location}, a cloud metadata address. "
                "If this host serves images nevertheless, name it in WALKCUT_ALLOWED_HOSTS."
            )
        if not (policy.allow_private_hosts or is_public(address)):
            raise ImageFetchError(
                f"{location}, which is not public. To fetch images from this host, name it in WALKCUT_ALLOWED_HOSTS; "
                "WALKCUT_ALLOW_PRIVATE_HOSTS=true allows all private hosts."
            )
    return addresses
