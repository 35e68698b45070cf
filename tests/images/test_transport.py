import ipaddress
import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders.http_site import Site, reply, serving
from walkcut.errors import ImageFetchError
from walkcut.images import Fetcher, FetchPolicy
from walkcut.images.address_policy import Address, is_public, resolve_host
from walkcut.images.transport import Deadline

LOOPBACK = ipaddress.ip_address("127.0.0.1")


class Names:
    """A resolver that answers for every name what it is told, and counts how often it is asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = tuple(ipaddress.ip_address(address) for address in addresses)
        self.asked = 0

    def __call__(self, host: str, port: int) -> tuple[Address, ...]:
        self.asked += 1
        return self.addresses


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


def test_a_deadline_has_time_left_or_raises() -> None:
    now = 5.0
    deadline = Deadline(2.0, lambda: now)
    assert deadline.remaining() == 2
    now = 7.0
    with pytest.raises(TimeoutError):
        deadline.remaining()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1", "2130706433", "0x7f.1"])
def test_other_spellings_of_loopback_are_resolved_and_refused(host: str) -> None:
    assert LOOPBACK in resolve_host(host, 80)
    with pytest.raises(ImageFetchError, match=r"127\.0\.0\.1, which is no public address.*WALKCUT_ALLOWED_HOSTS"):
        Fetcher(FetchPolicy(), None).fetch(f"http://{host}/a.jpg")


def test_one_private_address_among_public_ones_is_refused() -> None:
    names = Names("93.184.216.34", "169.254.169.254")
    with pytest.raises(ImageFetchError, match=r"images.example:80 is at 169\.254\.169\.254"):
        Fetcher(FetchPolicy(), None, resolve=names).fetch("http://images.example/a.jpg")


@pytest.mark.parametrize("allowed", ["images.example", "Images.Example", "images.example:{port}"])
def test_the_address_that_was_checked_is_the_one_that_is_asked(site: Site, allowed: str) -> None:
    """No second look-up that could answer otherwise (DNS rebinding); the name goes out as the Host header only."""
    site.routes["/a.jpg"] = reply(body=b"image")
    names = Names("127.0.0.1")
    policy = FetchPolicy(allowed_hosts=frozenset({allowed.format(port=site.server_port)}))
    fetcher = Fetcher(policy, None, resolve=names)
    assert fetcher.fetch(f"http://images.example:{site.server_port}/a.jpg") == b"image"
    assert names.asked == 1
    assert site.seen[0].headers["Host"] == f"images.example:{site.server_port}"


def test_an_address_where_nobody_listens_is_passed_over(site: Site) -> None:
    site.routes["/a.jpg"] = reply(body=b"image")
    fetcher = Fetcher(FetchPolicy(allow_private_hosts=True), None, resolve=Names("127.0.0.2", "127.0.0.1"))
    assert fetcher.fetch(f"http://localhost:{site.server_port}/a.jpg") == b"image"


def test_ipv6() -> None:
    with pytest.raises(ImageFetchError, match="::1, which is no public address"):
        Fetcher(FetchPolicy(), None).fetch("http://[::1]:1/a.jpg")


def test_the_environments_proxies_have_no_say(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    site.routes["/a.jpg"] = reply(body=b"image")
    assert Fetcher(FetchPolicy(allow_private_hosts=True), None).fetch(f"{site.url}/a.jpg") == b"image"


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A PEM file with a certificate for images.example, signed by itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    pem, name = tmp_path / "both.pem", "images.example"
    command = f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -addext subjectAltName=DNS:{name}"
    subprocess.run([*command.split(), "-keyout", tmp_path / "key", "-out", pem], check=True, capture_output=True)
    pem.write_bytes(pem.read_bytes() + (tmp_path / "key").read_bytes())
    return pem


@pytest.fixture
def secure_site(certificate: Path) -> Iterator[Site]:
    """A server that speaks TLS."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Site()
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with serving(server):
        yield server


def test_certificates_are_checked_against_the_name_not_the_address(secure_site: Site, certificate: Path) -> None:
    secure_site.routes["/a.jpg"] = reply(body=b"image")
    policy = FetchPolicy(allow_private_hosts=True, ca_bundle=certificate)
    fetcher = Fetcher(policy, None, resolve=Names("127.0.0.1"))
    assert fetcher.fetch(f"https://images.example:{secure_site.server_port}/a.jpg") == b"image"
    with pytest.raises(ImageFetchError, match=r"certificate of other.example.* is not trusted.*WALKCUT_CA_BUNDLE"):
        fetcher.fetch(f"https://other.example:{secure_site.server_port}/a.jpg")
    with pytest.raises(ImageFetchError, match="is not trusted"):
        Fetcher(FetchPolicy(allow_private_hosts=True), None).fetch(secure_site.url.replace("http", "https"))
