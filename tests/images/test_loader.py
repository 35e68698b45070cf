import pytest

from tests.builders.http_site import Site, reply
from walkcut.errors import ImageFetchError
from walkcut.images import FetchPolicy, ImageLoader, LabelStudioAccess

UPLOAD = "/data/upload/1/a.jpg"


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
