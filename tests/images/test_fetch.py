import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tests.builders.http_site import PERSONAL, Clock, Route, Seen, Site, jwt, redirect, reply
from tests.builders.resolver import FixedResolver
from walkcut.errors import ImageFetchError
from walkcut.images import FetchPolicy, ImageLoader, LabelStudioAccess
from walkcut.images.fetch import Fetcher

LEGACY = "0123456789abcdef0123456789abcdef01234567"
OPEN = FetchPolicy(allow_private_hosts=True)
UPLOAD = "/data/upload/1/a.jpg"


def make_fetcher(site: Site, token: str = "", policy: FetchPolicy = FetchPolicy(), sub_path: str = "") -> Fetcher:  # noqa: B008
    return Fetcher(policy, LabelStudioAccess(site.url + sub_path, token))


def refused(fetcher: Fetcher, reference: object, message: str, task_id: int | None = None) -> None:
    """Check that a fetch fails with a message that quotes the reference and no secret."""
    with pytest.raises(ImageFetchError, match=f"^cannot fetch the image .*{message}") as caught:
        fetcher.fetch(reference, task_id)
    assert not any(secret in str(caught.value) for secret in (LEGACY, PERSONAL, "signature"))


def authorizations(requests: list[Seen]) -> list[str | None]:
    return [request.headers.get("Authorization") for request in requests]


def for_bearer(token: str) -> Route:
    """Return an image for this access token only."""

    def route(handler: BaseHTTPRequestHandler) -> None:
        allowed = handler.headers.get("Authorization") == f"Bearer {token}"
        (reply(body=b"image") if allowed else reply(401))(handler)

    return route


def exchange(*access_tokens: str) -> Route:
    """Return these access tokens in turn, as Label Studio does for a personal access token."""
    tokens = list(access_tokens)

    def route(handler: BaseHTTPRequestHandler) -> None:
        reply(body=json.dumps({"access": tokens.pop(0)}).encode())(handler)

    return route


# References


def test_a_data_url_needs_neither_web_nor_label_studio() -> None:
    assert Fetcher(FetchPolicy(), None).fetch("data:;base64,aGVsbG8=") == b"hello"


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        (UPLOAD, UPLOAD),
        ("/data/upload/1/ä b%20c.jpg", "/data/upload/1/%C3%A4%20b%20c.jpg"),
        ("/data/local-files/?d=my set/a%2Bb.jpg", "/data/local-files/?d=my%20set/a%2Bb.jpg"),
    ],
)
@pytest.mark.parametrize("sub_path", ["", "/label-studio", "/label-studio/"])
def test_label_studios_files_are_fetched_with_its_token(site: Site, reference: str, target: str, sub_path: str) -> None:
    expected = sub_path.rstrip("/") + target
    site.routes[expected.partition("?")[0]] = reply(body=b"image")
    fetcher = make_fetcher(site, LEGACY, sub_path=sub_path)
    assert fetcher.fetch(reference) == b"image"
    assert fetcher.fetch(f"{site.url}{sub_path.rstrip('/')}{reference}") == b"image"
    assert [request.target for request in site.seen] == [expected] * 2
    assert authorizations(site.seen) == [f"Token {LEGACY}"] * 2


@pytest.mark.parametrize("reference", ["/ls/data/upload/1/a.jpg", "//data/upload/1/a.jpg", " /data/upload/1/a.jpg \n"])
@pytest.mark.parametrize("sub_path", ["", "/ls"])
def test_files_behind_a_sub_path_are_fetched_from_the_configured_label_studio(
    site: Site, reference: str, sub_path: str
) -> None:
    site.routes[sub_path + UPLOAD] = reply(body=b"image")
    fetcher = make_fetcher(site, LEGACY, sub_path=sub_path)
    assert fetcher.fetch(reference) == b"image"
    assert fetcher.fetch(f"{site.url}{sub_path}/{UPLOAD}") == b"image"
    assert authorizations(site.seen) == [f"Token {LEGACY}"] * 2


@pytest.mark.parametrize("reference", ["/tasks/5/presign/?fileuri=czM6", "/projects/3/resolve/?fileuri=czM6"])
def test_addresses_of_cloud_files_in_label_studio_are_fetched_from_it(site: Site, reference: str) -> None:
    site.routes["/ls" + reference.partition("?")[0]] = reply(body=b"image")
    fetcher = make_fetcher(site, LEGACY, sub_path="/ls")
    assert [fetcher.fetch(reference), fetcher.fetch(f"/ls{reference}")] == [b"image"] * 2
    assert [seen.target for seen in site.seen] == [f"/ls{reference}"] * 2
    assert authorizations(site.seen) == [f"Token {LEGACY}"] * 2


def test_local_files_come_from_disk_if_there_is_a_root(site: Site, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"image")
    policy = FetchPolicy(local_files_root=tmp_path)
    assert make_fetcher(site, LEGACY, policy).fetch("/data/local-files/?d=a.jpg") == b"image"
    assert Fetcher(policy, None).fetch("/data/local-files/?d=a.jpg") == b"image"
    assert not site.seen


def test_cloud_files_are_presigned_and_fetched_without_the_token(site: Site, elsewhere: Site) -> None:
    site.routes["/tasks/7/presign/"] = redirect(f"{elsewhere.url}/b/a.jpg?X-Amz-Signature=signature", 303)
    elsewhere.routes["/b/a.jpg"] = reply(body=b"image")
    policy = FetchPolicy(allowed_hosts=frozenset({f"127.0.0.1:{elsewhere.server_port}"}))
    assert make_fetcher(site, LEGACY, policy).fetch("s3://b/a.jpg", 7) == b"image"
    uri = base64.urlsafe_b64encode(b"s3://b/a.jpg").decode()
    assert site.seen[0].target == f"/tasks/7/presign/?fileuri={uri}"
    assert authorizations(site.seen) == [f"Token {LEGACY}"]
    assert authorizations(elsewhere.seen) == [None]
    elsewhere.routes.clear()
    refused(
        make_fetcher(site, LEGACY, policy), "s3://b/a.jpg", r"s3://b/a.jpg.*/b/a.jpg\?….* answered 404 Not Found", 7
    )


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (["/data/upload/1/a.jpg"], ".a list.: it is a list, not text. Accepted are"),
        (None, ".null.: it is null, not text"),
        (3, ".a number.: it is a number, not text"),
        ("", "does not support references of this kind. Accepted are"),
        ("file:///etc/passwd", "does not support references of this kind"),
        ("http://[::1/a.jpg", "the reference is not a valid URL.*Accepted are"),
        ("http://host:port/a.jpg", "the reference is not a valid URL"),
        ("http://user:signature@host/a.jpg", "'http://…@host/a.jpg'.*user names and passwords in URLs are not used"),
        ("http:///a.jpg", "names no host"),
        (f"http://{'a' * 64}.example/a.jpg", "the reference is not a valid URL"),
        ("/data/upload/\ud800", "the reference is not a valid URL"),
        ("http://127.0.0.1:1/a.jpg", "which is not public"),
        ("gs://b/a.jpg", "task's id"),
    ],
)
def test_other_references(site: Site, reference: object, message: str) -> None:
    refused(make_fetcher(site, LEGACY), reference, message)
    assert not site.seen


# Redirects


def test_redirects_are_followed_without_the_token(site: Site, elsewhere: Site) -> None:
    site.routes["/data/upload/1/a.jpg"] = redirect("/data/b")
    site.routes["/data/b"] = redirect(f"{elsewhere.url}/c")
    elsewhere.routes["/c"] = redirect(f"{elsewhere.url}/d e#part", 307)
    elsewhere.routes["/d%20e"] = reply(body=b"image")
    assert make_fetcher(site, LEGACY, OPEN).fetch(UPLOAD) == b"image"
    assert authorizations(site.seen) == [f"Token {LEGACY}"] * 2
    assert authorizations(elsewhere.seen) == [None] * 2


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/ä é.png".encode(), "/%C3%A4%20%C3%A9.png"),
        ("/图?name=ü".encode(), "/%E5%9B%BE?name=%C3%BC"),
        ("/ä.png".encode("latin-1"), "/%E4.png"),
        (b"/%C3%A4.png", "/%C3%A4.png"),
        (b" /a.png ", "/a.png"),
    ],
)
def test_addresses_of_redirects_are_encoded_once(site: Site, location: bytes, target: str) -> None:
    site.routes[UPLOAD] = redirect(location.decode("latin-1"))  # the server writes its headers in Latin-1
    site.routes[target.partition("?")[0]] = reply(body=b"image")
    assert make_fetcher(site).fetch(UPLOAD) == b"image"
    assert site.seen[-1].target == target


def test_a_redirect_to_a_host_outside_ascii_is_followed(site: Site) -> None:
    site.routes[UPLOAD] = redirect(f"http://bücher.example:{site.server_port}/a.png".encode().decode("latin-1"))
    site.routes["/a.png"] = reply(body=b"image")
    fetcher = Fetcher(OPEN, LabelStudioAccess(site.url), resolve=FixedResolver("127.0.0.1"))
    assert fetcher.fetch(UPLOAD) == b"image"
    assert site.seen[-1].headers["Host"] == f"xn--bcher-kva.example:{site.server_port}"


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://h/a.jpg", "data:,x", "http://[::1"])
def test_redirects_to_other_schemes_are_refused(site: Site, location: str) -> None:
    site.routes[UPLOAD] = redirect(location)
    refused(make_fetcher(site), UPLOAD, "the reference is not a valid URL")


def test_redirects_to_private_addresses_are_refused(site: Site, elsewhere: Site) -> None:
    site.routes[UPLOAD] = redirect(f"{elsewhere.url}/latest/meta-data")
    refused(
        make_fetcher(site, LEGACY), UPLOAD, f"127.0.0.1:{elsewhere.server_port} is at 127.0.0.1, which is not public"
    )
    assert not elsewhere.seen


def test_redirects_are_limited(site: Site) -> None:
    site.routes[UPLOAD] = redirect(UPLOAD)
    refused(make_fetcher(site), UPLOAD, "more than 5 redirects")
    assert len(site.seen) == 6
    site.routes[UPLOAD] = reply(302)
    refused(make_fetcher(site), UPLOAD, "answered 302 Found")


# Tokens


def test_a_personal_token_is_exchanged_kept_and_renewed(site: Site) -> None:
    clock = Clock()
    first, second = (jwt(iat=0, exp=300, number=number) for number in (1, 2))
    site.routes |= {"/ls/api/token/refresh/": exchange(first, second), "/ls" + UPLOAD: for_bearer(first)}
    fetcher = Fetcher(FetchPolicy(), LabelStudioAccess(f"{site.url}/ls/", PERSONAL), clock=clock)
    assert [fetcher.fetch(UPLOAD) for _ in range(2)] == [b"image"] * 2
    assert [json.loads(seen.body) for seen in site.seen if seen.body] == [{"refresh": PERSONAL}]
    clock.now += 241
    site.routes["/ls" + UPLOAD] = for_bearer(second)
    assert fetcher.fetch(UPLOAD) == b"image"
    assert not any(PERSONAL in str(authorization) for authorization in authorizations(site.seen))


def test_a_refused_access_token_is_renewed_and_sent_once_more(site: Site) -> None:
    site.routes |= {"/api/token/refresh/": exchange("a", "b", "c"), UPLOAD: for_bearer("b")}
    fetcher = make_fetcher(site, PERSONAL)
    assert fetcher.fetch(UPLOAD) == b"image"
    assert authorizations(site.seen) == [None, "Bearer a", None, "Bearer b"]
    site.routes[UPLOAD] = for_bearer("other")
    refused(fetcher, UPLOAD, "answered 401 Unauthorized to the personal access token.*LABEL_STUDIO_API_KEY")
    assert authorizations(site.seen[4:]) == ["Bearer b", None, "Bearer c"]


def test_threads_share_one_exchange(site: Site) -> None:
    site.routes |= {"/api/token/refresh/": exchange("a"), UPLOAD: for_bearer("a")}
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(make_fetcher(site, PERSONAL).fetch, [UPLOAD] * 16)) == [b"image"] * 16


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (reply(401), "token/refresh/' answered 401 Unauthorized to the personal access token.*copied in full"),
        (reply(404), "token/refresh/' answered 404 Not Found"),
        (redirect("/login"), "token/refresh/' answered 302 Found"),
        (reply(body=b"<html>"), "gave no access token. Set LABEL_STUDIO_URL"),
        (reply(body=b"[1]"), "gave no access token"),
        (reply(body=b'{"access": "a\\nb"}'), "gave no access token"),
        (reply(body=b'{"access": null}'), "gave no access token"),
    ],
)
def test_exchanges_that_fail(site: Site, answer: Route, message: str) -> None:
    site.routes["/api/token/refresh/"] = answer
    refused(make_fetcher(site, PERSONAL), UPLOAD, message)
    assert len(site.seen) == 1


@pytest.mark.parametrize(
    ("token", "status", "message"),
    [
        (
            LEGACY,
            401,
            "401 Unauthorized to the legacy token.*personal access token.*enable legacy tokens.*disabled by default",
        ),
        (LEGACY, 403, "403 Forbidden to the legacy token, or its user may not see the project"),
        ("", 401, "401 Unauthorized without a token: set LABEL_STUDIO_API_KEY"),
        (LEGACY, 404, "404 Not Found.*connect the storage to the project"),
        (LEGACY, 500, "500 Internal Server Error. Open the URL in a browser"),
        (LEGACY, 599, "599. Open"),
        (LEGACY, 206, "206 Partial Content"),
    ],
)
def test_refusals_of_label_studio(site: Site, token: str, status: int, message: str) -> None:
    site.routes[UPLOAD] = reply(status)
    refused(make_fetcher(site, token), UPLOAD, message)
    assert len(site.seen) == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (403, "403 Forbidden. Make the image public.*token is sent to http://127.0.0.1:[0-9]+ only"),
        (404, "404 Not Found. Open"),
    ],
)
def test_refusals_of_other_hosts(site: Site, elsewhere: Site, status: int, message: str) -> None:
    elsewhere.routes["/a.jpg"] = reply(status)
    refused(make_fetcher(site, LEGACY, OPEN), f"{elsewhere.url}/a.jpg", message)
    assert authorizations(elsewhere.seen) == [None]


# Limits


def drip(start: bytes, drop: bytes, stop: threading.Event) -> Route:
    """Return an endless answer, in pieces that each arrive in time."""

    def route(handler: BaseHTTPRequestHandler) -> None:
        try:
            handler.wfile.write(start)
            while not stop.is_set():
                handler.wfile.write(drop)
                time.sleep(0.02)
        except ConnectionError:
            stop.set()

    return route


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (b"HTTP/1.0 200 OK\r\n\r\n", b"x"),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1000000\r\n\r\n", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
        (b"HTTP/1.0 200 OK\r\nX-Long: ", b"x"),
        (b"", b""),
    ],
    ids=["body", "length", "chunked", "headers", "silence"],
)
def test_a_slow_answer_is_cut_off(site: Site, start: bytes, drop: bytes) -> None:
    stop = threading.Event()
    site.routes["/a.jpg"] = drip(start, drop, stop)
    policy = FetchPolicy(timeout=0.2, allow_private_hosts=True)
    refused(
        Fetcher(policy, None),
        f"{site.url}/a.jpg",
        "longer than 5 s to connect to or 0.2 s in total: check that server.*FETCH_TIMEOUT",
    )
    stop.set()


@pytest.mark.parametrize("headers", [{}, {"Content-Length": "1000"}, {"Transfer-Encoding": "chunked"}])
def test_images_of_too_many_bytes_are_refused(site: Site, headers: dict[str, str]) -> None:
    start = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    body = b"41\r\n" + b"x" * 0x41 + b"\r\n0\r\n\r\n" if "Transfer-Encoding" in headers else b"x" * 65
    stop = threading.Event()
    site.routes["/a.jpg"] = drip(f"HTTP/1.1 200 OK\r\n{start}\r\n".encode() + body, b"", stop)
    policy = FetchPolicy(max_bytes=64, allow_private_hosts=True)
    refused(Fetcher(policy, None), f"{site.url}/a.jpg", "more than 64 bytes.*WALKCUT_MAX_BYTES")
    stop.set()


def test_an_image_ends_with_its_length_even_if_the_connection_does_not(site: Site) -> None:
    stop = threading.Event()
    site.routes["/a.jpg"] = drip(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nimage", b"", stop)
    assert Fetcher(OPEN, None).fetch(f"{site.url}/a.jpg") == b"image"
    stop.set()


def test_an_image_of_exactly_the_limit_is_accepted(site: Site) -> None:
    site.routes["/a.jpg"] = reply(body=b"x" * 64)
    assert Fetcher(FetchPolicy(max_bytes=64, allow_private_hosts=True), None).fetch(f"{site.url}/a.jpg") == b"x" * 64


@pytest.mark.parametrize(
    "encoding", ["", " ", "identity", "IDENTITY", "aws-chunked", "UTF-8", "base64", "none", "image/png"]
)
def test_words_of_stores_that_change_no_bytes_are_ignored(site: Site, encoding: str) -> None:
    site.routes["/a.jpg"] = reply(body=b"image", headers={"Content-Encoding": encoding})
    assert Fetcher(OPEN, None).fetch(f"{site.url}/a.jpg") == b"image"


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "aws-chunked,gzip", "identity, x-gzip", "br", "deflate", "zstd"])
def test_compressed_answers_are_refused(site: Site, encoding: str) -> None:
    site.routes["/a.jpg"] = reply(body=b"x", headers={"Content-Encoding": encoding})
    refused(Fetcher(OPEN, None), f"{site.url}/a.jpg", "the server compressed the response .*Store the image without")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            reply(body=b"x", headers={"Content-Length": "2"}),
            r"closed the connection \(peer closed .*received 1 bytes, expected 2",
        ),
        (
            reply(body=b"x", headers={"Content-Encoding": "gzip"}),
            "compressed the response .gzip.. Store the image without gzip",
        ),
        (lambda handler: handler.wfile.write(b"nonsense\r\n"), "closed the connection"),
        (lambda handler: None, "closed the connection"),
    ],
)
def test_broken_answers(site: Site, answer: Route, message: str) -> None:
    site.routes["/a.jpg"] = answer
    refused(Fetcher(OPEN, None), f"{site.url}/a.jpg", message)


def test_a_host_that_cannot_be_reached(site: Site) -> None:
    site.server_close()
    refused(Fetcher(OPEN, None), f"{site.url}/a.jpg", "cannot be reached.*inside a container, localhost is")
    refused(Fetcher(OPEN, None), "http://no-such-host.invalid/a.jpg", "no-such-host.invalid cannot be reached")


# Label Studio that registers itself


@pytest.fixture
def label_studio(site: Site) -> Site:
    site.routes[UPLOAD] = reply(body=b"image")
    return site


def test_without_settings_label_studio_registers_itself(label_studio: Site) -> None:
    loader = ImageLoader(FetchPolicy(), None, trusts_callers=True)
    with pytest.raises(ImageFetchError, match="LABEL_STUDIO_URL"):
        loader.fetch(UPLOAD)
    loader.register_label_studio(label_studio.url, "abc")
    assert loader.fetch(UPLOAD) == b"image"
    assert label_studio.seen[-1].headers["Authorization"] == "Token abc"


def test_a_configured_token_is_not_sent_to_an_address_from_a_request(label_studio: Site, elsewhere: Site) -> None:
    elsewhere.routes[UPLOAD] = reply(body=b"other image")
    loader = ImageLoader(FetchPolicy(), LabelStudioAccess(label_studio.url, "configured"))
    loader.register_label_studio(elsewhere.url, "theirs")
    assert loader.fetch(UPLOAD) == b"image"
    assert loader.fetch(f"{elsewhere.url}{UPLOAD}") == b"image"
    assert [seen.headers["Authorization"] for seen in label_studio.seen] == ["Token configured"] * 2
    assert elsewhere.seen == []


@pytest.mark.parametrize(("hostname", "token"), [("", ""), ("localhost", "abc"), ("ftp://x", ""), ("http://x", "a b")])
def test_values_that_are_no_address_change_nothing(label_studio: Site, hostname: str, token: str) -> None:
    loader = ImageLoader(FetchPolicy(), None, trusts_callers=True)
    loader.register_label_studio(label_studio.url, "abc")
    loader.register_label_studio(hostname, token)
    assert loader.fetch(UPLOAD) == b"image"
