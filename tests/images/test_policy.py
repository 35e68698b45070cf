import pytest

from walkcut.errors import SettingsError
from walkcut.images import LabelStudioAccess
from walkcut.images.policy import Origin, parse_origin


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://Host/x", Origin("http", "host", 80)),
        ("https://host", Origin("https", "host", 443)),
        ("https://host:0443/", Origin("https", "host", 443)),
        ("http://[::1]:8080/x", Origin("http", "::1", 8080)),
    ],
)
def test_origin(url: str, expected: Origin) -> None:
    assert parse_origin(url) == expected


@pytest.mark.parametrize("url", ["ftp://host", "file:///etc/passwd", "http:///x", "http://h:99999", "http://u:p@h", "",
                                 "http://h/?token=x", "http://h/#part"])  # fmt: skip
def test_urls_without_an_origin_are_no_address_of_label_studio(url: str) -> None:
    with pytest.raises(SettingsError, match=r"is not a Label Studio address: .*LABEL_STUDIO_URL"):
        LabelStudioAccess(url)
    with pytest.raises(SettingsError, match="is not a Label Studio address"):
        LabelStudioAccess("http://ls", aliases=(url,))


@pytest.mark.parametrize("token", ["secret token", "secret\r\nX: y", "secrét"])
def test_a_token_that_could_break_a_header_is_refused_without_quoting_it(token: str) -> None:
    with pytest.raises(SettingsError, match="LABEL_STUDIO_API_KEY") as caught:
        LabelStudioAccess("http://ls", token)
    assert "secr" not in str(caught.value)


def test_the_token_is_not_printed() -> None:
    assert "secret" not in repr(LabelStudioAccess("http://ls:8080", "secret"))
