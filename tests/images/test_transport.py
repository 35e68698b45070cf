import logging
import shutil
import socket
import ssl
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.builders.http_site import Site, redirect, reply, serving
from tests.builders.resolver import FixedResolver
from walkcut.errors import ImageFetchError
from walkcut.images import FetchPolicy
from walkcut.images.fetch import Fetcher
from walkcut.images.transport import Deadline


def test_a_deadline_has_time_left_or_raises() -> None:
    now = 5.0
    deadline = Deadline(2.0, lambda: now)
    assert deadline.remaining() == 2
    assert deadline.remaining(0.5) == 0.5
    now = 7.0
    with pytest.raises(TimeoutError):
        deadline.remaining()


@pytest.mark.parametrize("allowed", ["images.example", "Images.Example", "images.example:{port}"])
def test_the_address_that_was_checked_is_the_one_connected_to(site: Site, allowed: str) -> None:
    """No second look-up that could answer otherwise (DNS rebinding); the name is sent as the Host header only."""
    site.routes["/a.jpg"] = reply(body=b"image")
    resolver = FixedResolver("127.0.0.1")
    policy = FetchPolicy(allowed_hosts=frozenset({allowed.format(port=site.server_port)}))
    fetcher = Fetcher(policy, None, resolve=resolver)
    assert fetcher.fetch(f"http://images.example:{site.server_port}/a.jpg") == b"image"
    assert resolver.lookups == 1
    assert site.seen[0].headers["Host"] == f"images.example:{site.server_port}"


@pytest.mark.parametrize(
    ("host", "expected"),
    [("Images.Example", "images.example"), ("bücher.example", "xn--bcher-kva.example"), ("[::1]", "[::1]")],
)
def test_headers_of_a_request(site: Site, host: str, expected: str) -> None:
    site.routes["/a.jpg"] = reply(body=b"image", headers={"Set-Cookie": "a=b"})
    fetcher = Fetcher(FetchPolicy(allow_private_hosts=True), None, resolve=FixedResolver("127.0.0.1"))
    for _ in range(2):
        assert fetcher.fetch(f"http://{host}:{site.server_port}/a.jpg") == b"image"
    headers = {"Host": f"{expected}:{site.server_port}", "User-Agent": "walkcut", "Accept-Encoding": "identity"}
    assert [seen.headers for seen in site.seen] == [{**headers, "Connection": "close"}] * 2


def test_an_address_where_nobody_listens_is_skipped(site: Site) -> None:
    site.routes["/a.jpg"] = reply(body=b"image")
    fetcher = Fetcher(FetchPolicy(allow_private_hosts=True), None, resolve=FixedResolver("127.0.0.2", "127.0.0.1"))
    assert fetcher.fetch(f"http://localhost:{site.server_port}/a.jpg") == b"image"


def test_the_environments_proxies_are_ignored(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    site.routes["/a.jpg"] = reply(body=b"image")
    assert Fetcher(FetchPolicy(allow_private_hosts=True), None).fetch(f"{site.url}/a.jpg") == b"image"


def test_headers_are_not_logged(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    site.routes |= {"/a.jpg": redirect("/b.jpg?X-Amz-Signature=secret"), "/b.jpg": reply(body=b"image")}
    assert Fetcher(FetchPolicy(allow_private_hosts=True), None).fetch(f"{site.url}/a.jpg") == b"image"
    assert "secret" not in caplog.text


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A PEM file with a self-signed certificate for images.example and ::1, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs openssl to make a certificate")
    pem, name = tmp_path / "both.pem", "images.example"
    command = (
        f"{openssl} req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -addext subjectAltName=DNS:{name},IP:::1"
    )
    subprocess.run([*command.split(), "-keyout", tmp_path / "key", "-out", pem], check=True, capture_output=True)
    pem.write_bytes(pem.read_bytes() + (tmp_path / "key").read_bytes())
    return pem


@pytest.fixture
def secure_site(certificate: Path) -> Iterator[Site]:
    """A server that speaks TLS, and HTTP/2 if asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = Site()
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    with serving(server):
        yield server


def test_certificates_are_checked_against_the_name_not_the_address(secure_site: Site, certificate: Path) -> None:
    secure_site.routes["/a.jpg"] = reply(body=b"image")
    policy = FetchPolicy(allow_private_hosts=True, ca_bundle=certificate)
    fetcher = Fetcher(policy, None, resolve=FixedResolver("127.0.0.1"))
    for host in ("images.example", "[::1]"):
        assert fetcher.fetch(f"https://{host}:{secure_site.server_port}/a.jpg") == b"image"
    with pytest.raises(ImageFetchError, match=r"certificate of other.example.* is not trusted.*WALKCUT_CA_BUNDLE"):
        fetcher.fetch(f"https://other.example:{secure_site.server_port}/a.jpg")
    with pytest.raises(ImageFetchError, match="is not trusted"):
        Fetcher(FetchPolicy(allow_private_hosts=True), None).fetch(secure_site.url.replace("http", "https"))


def test_threads_share_the_trusted_certificates(secure_site: Site, certificate: Path) -> None:
    secure_site.routes["/a.jpg"] = reply(body=b"image")
    policy = FetchPolicy(allow_private_hosts=True, ca_bundle=certificate)
    fetcher = Fetcher(policy, None, resolve=FixedResolver("127.0.0.1"))
    urls = [f"https://images.example:{secure_site.server_port}/a.jpg"] * 8
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(fetcher.fetch, urls)) == [b"image"] * 8


def test_the_handshake_ends_by_the_time_to_connect() -> None:
    policy = FetchPolicy(connect_timeout=0.1, allow_private_hosts=True)
    message = r"longer than 0\.1 s to connect to"
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(ImageFetchError, match=message):
        Fetcher(policy, None).fetch(f"https://127.0.0.1:{silent.getsockname()[1]}/a.jpg")
