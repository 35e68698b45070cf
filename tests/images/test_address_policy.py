import ipaddress

import pytest

from tests.builders.resolver import FixedResolver
from walkcut.errors import ImageFetchError
from walkcut.images import FetchPolicy
from walkcut.images.address_policy import is_public, resolve_host
from walkcut.images.fetch import Fetcher

LOOPBACK = ipaddress.ip_address("127.0.0.1")


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34", "64:ff9b::808:808"])
def test_public_addresses(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.1.2.3", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
        "0.0.0.0", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1",
        "::", "::1", "fe80::1", "fc00::1", "fec0::1", "ff02::1", "2001:db8::1",
        "::ffff:127.0.0.1", "::ffff:a9fe:a9fe", "2002:7f00:1::", "64:ff9b::7f00:1",
    ],
)  # fmt: skip
def test_addresses_that_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1"])
def test_other_spellings_of_loopback_are_resolved_and_refused(host: str) -> None:
    assert LOOPBACK in resolve_host(host, 80)
    with pytest.raises(ImageFetchError, match=r"127\.0\.0\.1, which is not public.*WALKCUT_ALLOWED_HOSTS"):
        Fetcher(FetchPolicy(), None).fetch(f"http://{host}/a.jpg")


def test_one_private_address_among_public_ones_is_refused() -> None:
    resolver = FixedResolver("93.184.216.34", "169.254.169.254")
    with pytest.raises(ImageFetchError, match=r"images.example:80 is at 169\.254\.169\.254"):
        Fetcher(FetchPolicy(), None, resolve=resolver).fetch("http://images.example/a.jpg")


def test_ipv6() -> None:
    with pytest.raises(ImageFetchError, match="::1, which is not public"):
        Fetcher(FetchPolicy(), None).fetch("http://[::1]:1/a.jpg")


def test_a_host_without_any_address_cannot_be_reached() -> None:
    with pytest.raises(ImageFetchError, match="has no address"):
        Fetcher(FetchPolicy(), None, resolve=FixedResolver()).fetch("http://images.example/a.jpg")
