"""Attacks by image references that make the backend send requests for their author (SSRF), and by web servers."""

import ipaddress
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler

import pytest

from tests.builders.http_site import Site, redirect, reply
from tests.builders.resolver import FixedResolver
from walkcut.errors import ImageFetchError
from walkcut.images import FetchPolicy, ImageLoader, LabelStudioAccess
from walkcut.images.address_policy import is_metadata, is_public
from walkcut.images.fetch import Fetcher

TOKEN = "0123456789abcdef0123456789abcdef01234567"
UPLOAD = "/data/upload/1/a.jpg"
PUBLIC = "93.184.216.34"
METADATA = [
    "169.254.169.254", "169.254.170.2", "fe80::a9fe:a9fe", "fd00:ec2::254", "fd20:ce::254", "168.63.129.16",
    "100.100.100.200", "192.0.0.192", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe", "64:ff9b::a9fe:a9fe",
    "2002:a9fe:a9fe::", "::169.254.169.254",
]  # fmt: skip
PRIVATE = [
    "127.0.0.1", "0.0.0.0", "10.0.0.1", "172.31.255.255", "192.168.0.1", "100.64.0.1", "192.0.0.8", "198.18.0.1",
    "224.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2001:0:7f00:1::", "fc00::1", "fd12::1",
    "fe80::1", "fec0::1", "ff02::1", "2001:db8::1", "100::1", "5f00::1",
]  # fmt: skip


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that connections are attempted to; all of them are refused."""
    attempted: list[str] = []

    def refuse(place: tuple[str, int], timeout: float) -> socket.socket:
        attempted.append(place[0])
        raise ConnectionRefusedError("refused")

    monkeypatch.setattr("walkcut.images.transport.socket.create_connection", refuse)
    return attempted


@pytest.mark.parametrize("address", [*PRIVATE, *METADATA])
def test_a_name_that_leads_to_a_private_address(address: str, connections: list[str]) -> None:
    assert not is_public(ipaddress.ip_address(address))
    with pytest.raises(ImageFetchError, match=r"evil\.example:80 is at .*WALKCUT_ALLOWED_HOSTS"):
        Fetcher(FetchPolicy(), None, resolve=FixedResolver(address)).fetch("http://evil.example/a.jpg")
    assert connections == []


@pytest.mark.parametrize("address", METADATA)
def test_metadata_where_private_addresses_are_allowed(address: str, connections: list[str]) -> None:
    assert is_metadata(ipaddress.ip_address(address))
    policy = FetchPolicy(allow_private_hosts=True)
    with pytest.raises(ImageFetchError, match="a cloud metadata address"):
        Fetcher(policy, None, resolve=FixedResolver(address)).fetch("http://evil.example/latest/meta-data/")
    assert connections == []


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.1", "0177.0.0.1", "0x7f.0.0.1", "0x7f000001", "2130706433", "017700000001", "0", "0.0.0.0",
     "localhost", "LOCALHOST", "localhost.", "127.0.0.1.", "①②⑦.0.0.1", "127。0。0。1", "[::1]", "[::]",
     "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[0:0:0:0:0:0:0:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]",
     "169.254.169.254", "0xa9fea9fe", "[::ffff:169.254.169.254]"],
)  # fmt: skip
def test_other_spellings_of_private_addresses(host: str, connections: list[str]) -> None:
    with pytest.raises(ImageFetchError):
        Fetcher(FetchPolicy(), None).fetch(f"http://{host}/a.jpg")
    assert connections == []


def test_a_private_address_among_public_ones(connections: list[str]) -> None:
    with pytest.raises(ImageFetchError, match=r"is at 10\.0\.0\.1, which is not public"):
        Fetcher(FetchPolicy(), None, resolve=FixedResolver(PUBLIC, "10.0.0.1")).fetch("http://evil.example/a.jpg")
    assert connections == []


def test_dns_rebinding(connections: list[str]) -> None:
    """A name that is public at the check and private at the connection."""
    with pytest.raises(ImageFetchError, match="cannot be reached"):
        Fetcher(FetchPolicy(), None, resolve=FixedResolver(PUBLIC, later="169.254.169.254")).fetch(
            "http://evil.example/a.jpg"
        )
    assert connections == [PUBLIC]


def test_dns_rebinding_between_redirects(site: Site) -> None:
    """An allowed name redirects to another one, which has become private in the meantime."""
    resolver = FixedResolver("127.0.0.1", later="169.254.169.254")
    site.routes["/a.jpg"] = redirect(f"http://other.example:{site.server_port}/b.jpg")
    policy = FetchPolicy(allow_private_hosts=True)
    with pytest.raises(ImageFetchError, match=r"other\.example:\d+ is at 169\.254\.169\.254"):
        Fetcher(policy, None, resolve=resolver).fetch(f"http://evil.example:{site.server_port}/a.jpg")
    assert len(site.seen) == 1


def test_a_name_with_thousands_of_addresses(connections: list[str]) -> None:
    addresses = [f"93.184.{index >> 8}.{index & 255}" for index in range(5000)]
    with pytest.raises(ImageFetchError, match="cannot be reached"):
        Fetcher(FetchPolicy(), None, resolve=FixedResolver(*addresses)).fetch("http://evil.example/a.jpg")
    assert len(connections) == 8


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("http://169.254.169.254/latest/meta-data/", "a cloud metadata address"),
        ("//169.254.169.254/latest/meta-data/", "a cloud metadata address"),
        ("http://[::ffff:a9fe:a9fe]/", "a cloud metadata address"),
        ("http://localhost:1/", "which is not public"),
        ("http://2130706433/", "which is not public"),
        ("file:///etc/passwd", "neither http nor https"),
        ("ftp://evil.example/", "neither http nor https"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "neither http nor https"),
        ("data:image/png;base64,aGVsbG8=", "neither http nor https"),
        ("http://me:secret@127.0.0.1/", "user names and passwords"),
        ("http://ev\til.example@127.0.0.1/", "user names and passwords"),
        ("/a\r\n b", "404"),
        ("http://127.0.0.1:99999/", "the reference is not a valid URL"),
        ("", "answered 302"),
    ],
)
def test_redirects_from_an_allowed_host(site: Site, location: str, message: str) -> None:
    site.routes[UPLOAD] = redirect(location)
    with pytest.raises(ImageFetchError, match=message) as caught:
        Fetcher(FetchPolicy(), LabelStudioAccess(site.url, TOKEN)).fetch(UPLOAD)
    assert TOKEN not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("reference", ["http://other.example/a.jpg", "https://images.example:8443/a.jpg"])
def test_unlisted_hosts_if_only_listed_ones_are_allowed(reference: str, connections: list[str]) -> None:
    policy = FetchPolicy(only_allowed_hosts=True, allowed_hosts=frozenset({"images.example:443"}))
    with pytest.raises(ImageFetchError, match=r"not among the hosts that images may come from.*WALKCUT_ALLOWED_HOSTS"):
        Fetcher(policy, None, resolve=FixedResolver(PUBLIC)).fetch(reference)
    assert connections == []
    with pytest.raises(ImageFetchError, match="cannot be reached"):
        Fetcher(policy, None, resolve=FixedResolver(PUBLIC)).fetch("https://images.example/a.jpg")
    with pytest.raises(ImageFetchError, match="cannot be reached"):
        Fetcher(policy, LabelStudioAccess("http://ls.example"), resolve=FixedResolver(PUBLIC)).fetch(UPLOAD)
    assert connections == [PUBLIC] * 2


# The token


@pytest.mark.parametrize(
    "path",
    ["/api/users/", "/api/projects/1/next", "/", "/user/login/", "/data/../api/users/", "/data/%2e%2e/api/users/",
     "/data/..%5capi/users/", "/tasks/7/%2E%2E/../api/users/", "/static/a.jpg", "/DATA/upload/a.jpg"],
)  # fmt: skip
def test_a_reference_into_label_studios_api(site: Site, path: str) -> None:
    """Authors of tasks must not act as the token's user."""
    site.routes[path] = reply(body=b"image")
    Fetcher(FetchPolicy(), LabelStudioAccess(site.url, TOKEN, ("http://alias",))).fetch(f"{site.url}{path}")
    Fetcher(FetchPolicy(), LabelStudioAccess(site.url, TOKEN, ("http://alias",))).fetch(f"http://alias{path}")
    assert [seen.headers.get("Authorization") for seen in site.seen] == [None, None]


@pytest.mark.parametrize("host", ["ls.example.evil.example", "ls.example.", "evil-ls.example", "xn--ls-abc.example"])
def test_hosts_that_look_like_label_studios(site: Site, host: str) -> None:
    site.routes[UPLOAD] = reply(body=b"image")
    access, policy = (
        LabelStudioAccess(f"http://ls.example:{site.server_port}", TOKEN),
        FetchPolicy(allow_private_hosts=True),
    )
    fetcher = Fetcher(policy, access, resolve=FixedResolver("127.0.0.1"))
    assert fetcher.fetch(f"http://{host}:{site.server_port}{UPLOAD}") == b"image"
    assert fetcher.fetch(f"http://ls.example:{site.server_port}{UPLOAD}") == b"image"
    assert [seen.headers.get("Authorization") for seen in site.seen] == [None, f"Token {TOKEN}"]


def test_label_studios_host_at_another_port_or_beside_its_sub_path(site: Site, elsewhere: Site) -> None:
    site.routes[UPLOAD] = elsewhere.routes[UPLOAD] = reply(body=b"image")
    policy = FetchPolicy(allow_private_hosts=True)
    Fetcher(policy, LabelStudioAccess(site.url, TOKEN)).fetch(f"{elsewhere.url}{UPLOAD}")
    Fetcher(policy, LabelStudioAccess(f"{site.url}/ls", TOKEN)).fetch(f"{site.url}{UPLOAD}")
    assert [seen.headers.get("Authorization") for seen in (*site.seen, *elsewhere.seen)] == [None, None]


def test_a_header_smuggled_in_by_a_reference(site: Site) -> None:
    site.routes["/data/upload/aHost:"] = site.routes["/data/upload/a%20HTTP/1.1"] = reply(body=b"image")
    fetcher = Fetcher(FetchPolicy(), LabelStudioAccess(site.url, TOKEN))
    for reference in ("/data/upload/a HTTP/1.1", "/data/upload/a\r\nHost:"):
        assert fetcher.fetch(reference) == b"image"
    assert [seen.headers["Host"] for seen in site.seen] == [f"127.0.0.1:{site.server_port}"] * 2


def test_the_configured_token_is_not_sent_to_an_address_from_set_up(site: Site, elsewhere: Site) -> None:
    site.routes[UPLOAD] = elsewhere.routes[UPLOAD] = reply(body=b"image")
    loader = ImageLoader(FetchPolicy(), LabelStudioAccess(site.url, TOKEN), trusts_callers=True)
    loader.register_label_studio(elsewhere.url, "")
    loader.fetch(UPLOAD)
    loader.fetch(f"{elsewhere.url}{UPLOAD}")
    assert len(site.seen) == 2
    assert elsewhere.seen == []


def test_an_unknown_caller_of_set_up_names_a_private_address(site: Site) -> None:
    loader = ImageLoader(FetchPolicy(), None)
    loader.register_label_studio(site.url, TOKEN)
    with pytest.raises(ImageFetchError, match="Set LABEL_STUDIO_URL"):
        loader.fetch(UPLOAD)
    with pytest.raises(ImageFetchError, match="which is not public"):
        loader.fetch(f"{site.url}{UPLOAD}")
    assert site.seen == []


def test_a_token_at_set_up_that_breaks_its_parser(site: Site) -> None:
    loader = ImageLoader(FetchPolicy(), None, trusts_callers=True)
    loader.register_label_studio(site.url, "a.W1tb" + "W1tb" * 5000 + ".c")  # lists in lists in lists
    site.routes[UPLOAD] = reply(body=b"image")
    assert loader.fetch(UPLOAD) == b"image"


# Secrets in messages and logs


@pytest.mark.parametrize(
    "reference",
    ["https://bucket.example/a.jpg?X-Amz-Signature=secret", "https://bucket.example/a.jpg#secret",
     "//bucket.example/a.jpg?X-Amz-Signature=secret", "https:/bucket.example/a.jpg?sig=secret", "a.jpg?secret",
     "//me:secret@host/a.jpg", "http://me:secret@host/a.jpg", "http://me:secret@ho\u2100st/a.jpg",
     "ftp://me:secret@host/a.jpg", "data:image/png;base64,secret!", "HTTPS://ME:secret@host?x"],
)  # fmt: skip
def test_secrets_of_references_are_not_in_messages(reference: str, connections: list[str]) -> None:
    with pytest.raises(ImageFetchError) as caught:
        Fetcher(FetchPolicy(), LabelStudioAccess("http://ls", TOKEN), resolve=FixedResolver(PUBLIC)).fetch(reference)
    assert "secret" not in str(caught.value)


def test_secrets_of_set_up_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for configured in (None, LabelStudioAccess("http://ls", TOKEN)):
        loader = ImageLoader(FetchPolicy(), configured, trusts_callers=True)
        for hostname in ("http://me:geheim@ls", "http://me:geheim@l\u2100s", "ftp://ls?geheim", "geheim@ls:x"):
            loader.register_label_studio(hostname, "geheim")
        loader.register_label_studio("http://ls", "geheim und blank")
    assert "not used" in caplog.text
    assert "geheim" not in caplog.text
    assert TOKEN not in caplog.text


@pytest.mark.parametrize("host", ["ev\x1b[31mil", "ev\x07il", "ev\u202eil", "ev\x00il", "e v\x7fil"])
def test_a_host_of_control_characters(host: str) -> None:
    with pytest.raises(ImageFetchError) as caught:
        Fetcher(FetchPolicy(), None).fetch(f"http://{host}.example/a.jpg")
    assert str(caught.value).isprintable()


# Endless responses


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that accepts connections and sends nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_server_that_never_shakes_hands(silent: int) -> None:
    policy = FetchPolicy(timeout=0.2, allow_private_hosts=True)
    with pytest.raises(ImageFetchError, match=r"longer than 5 s to connect to or 0\.2 s in total"):
        Fetcher(policy, None).fetch(f"https://127.0.0.1:{silent}/a.jpg")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 100_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nx\r\n",
    ],
    ids=["many headers", "long header", "long status", "long chunk size", "negative chunk size"],
)
def test_overlong_heads_and_broken_chunks(site: Site, answer: bytes) -> None:
    def route(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(answer)

    site.routes["/a.jpg"] = route
    with pytest.raises(ImageFetchError, match=r"closed the connection|the reference is not a valid URL"):
        Fetcher(FetchPolicy(allow_private_hosts=True), None).fetch(f"{site.url}/a.jpg")


def test_a_server_that_sends_100_continue_for_ever(site: Site) -> None:
    stop = threading.Event()

    def route(handler: BaseHTTPRequestHandler) -> None:
        with suppress(OSError):
            while not stop.is_set():
                handler.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 10)

    site.routes["/a.jpg"] = route
    policy = FetchPolicy(timeout=0.3, allow_private_hosts=True)
    with pytest.raises(ImageFetchError, match=r"0\.3 s in total"):
        Fetcher(policy, None).fetch(f"{site.url}/a.jpg")
    stop.set()


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, identity", "identity, gzip"])
def test_a_compressed_response_is_not_decompressed(site: Site, encoding: str) -> None:
    site.routes["/a.jpg"] = reply(body=b"\x1f\x8b", headers={"Content-Encoding": encoding})
    with pytest.raises(ImageFetchError, match="the server compressed the response"):
        Fetcher(FetchPolicy(allow_private_hosts=True), None).fetch(f"{site.url}/a.jpg")


def test_two_content_encodings_are_not_decompressed(site: Site) -> None:
    def route(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: identity\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b")

    site.routes["/a.jpg"] = route
    with pytest.raises(ImageFetchError, match="the server compressed the response"):
        Fetcher(FetchPolicy(allow_private_hosts=True), None).fetch(f"{site.url}/a.jpg")
