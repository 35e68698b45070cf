import pytest

from tests.builders.http_site import Site, reply
from walkcut.errors import ImageFetchError
from walkcut.images import FetchPolicy, ImageLoader, LabelStudioAccess

UPLOAD = "/data/upload/1/a.jpg"


@pytest.fixture
def label_studio(site: Site) -> Site:
    site.routes[UPLOAD] = reply(body=b"image")
    return site


def test_without_settings_label_studio_introduces_itself(label_studio: Site) -> None:
    source = ImageLoader(FetchPolicy(), None, trusts_callers=True)
    with pytest.raises(ImageFetchError, match="LABEL_STUDIO_URL"):
        source.fetch(UPLOAD)
    source.register_label_studio(label_studio.url, "abc")
    assert source.fetch(UPLOAD) == b"image"
    assert label_studio.seen[-1].headers["Authorization"] == "Token abc"


def test_a_configured_token_is_not_shown_to_an_address_from_a_request(label_studio: Site, elsewhere: Site) -> None:
    elsewhere.routes[UPLOAD] = reply(body=b"another's")
    source = ImageLoader(FetchPolicy(), LabelStudioAccess(label_studio.url, "configured"))
    source.register_label_studio(elsewhere.url, "theirs")
    assert source.fetch(UPLOAD) == b"image"
    assert source.fetch(f"{elsewhere.url}{UPLOAD}") == b"image"
    assert [seen.headers["Authorization"] for seen in label_studio.seen] == ["Token configured"] * 2
    assert elsewhere.seen == []


@pytest.mark.parametrize(("hostname", "token"), [("", ""), ("localhost", "abc"), ("ftp://x", ""), ("http://x", "a b")])
def test_what_is_no_address_changes_nothing(label_studio: Site, hostname: str, token: str) -> None:
    source = ImageLoader(FetchPolicy(), None, trusts_callers=True)
    source.register_label_studio(label_studio.url, "abc")
    source.register_label_studio(hostname, token)
    assert source.fetch(UPLOAD) == b"image"
