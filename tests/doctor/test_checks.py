from collections.abc import Iterator

import pytest

from walkcut.doctor.checks import Check, Finding, without_secrets
from walkcut.errors import SettingsError
from walkcut.settings import Settings


def test_a_look_that_fails_on_purpose_is_a_finding_with_the_errors_words() -> None:
    def look() -> Iterator[Finding]:
        yield Finding("disk", "ok", "there")
        raise SettingsError("too small: make it larger")

    assert list(Check("disk", "the disk cannot be used", look).findings()) == [
        Finding("disk", "ok", "there"),
        Finding("disk", "error", "the disk cannot be used", "too small: make it larger"),
    ]


def test_a_look_that_breaks_is_a_finding_too() -> None:
    def look() -> list[Finding]:
        raise ZeroDivisionError("by  zero")

    (finding,) = Check("disk", "the disk cannot be used", look).findings()
    assert finding.level == "error"
    assert finding.what == "the disk cannot be used, or this check has a defect (ZeroDivisionError: by zero)"
    assert "report it" in finding.remedy


@pytest.mark.parametrize(
    "settings",
    [
        Settings(label_studio_api_key="hunter22"),
        Settings(basic_auth_pass="hunter22"),
        Settings(database_url="postgresql://me:hunter22@db/walkcut"),
        Settings(database_url="postgresql://me:hunter%32%32@db/walkcut"),
        Settings(label_studio_url="http://me:hunter22@host"),
    ],
)
def test_no_secret_of_the_settings_is_shown(settings: Settings) -> None:
    shown = without_secrets(Finding("x", "error", "said hunter22", "not hunter22"), settings)
    assert (shown.what, shown.remedy) == ("said …", "not …")


def test_no_password_in_any_address_is_shown() -> None:
    shown = without_secrets(Finding("x", "error", "at http://me:other@host:9090/a and http://host:1/b@c"), Settings())
    assert shown.what == "at http://me:…@host:9090/a and http://host:1/b@c"


def test_a_very_short_secret_blanks_out_no_words() -> None:
    assert without_secrets(Finding("x", "ok", "a word"), Settings(basic_auth_pass="a")).what == "a word"
