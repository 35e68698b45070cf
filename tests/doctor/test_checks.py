from collections.abc import Iterator

import pytest

from walkcut.doctor.checks import Finding, run_check, without_secrets
from walkcut.errors import SettingsError
from walkcut.settings import Settings


def test_a_check_that_raises_is_a_finding_with_the_errors_message() -> None:
    def check() -> Iterator[Finding]:
        yield Finding("disk", "ok", "20 GiB free")
        raise SettingsError("too small: make it larger")

    assert list(run_check("disk", "the disk cannot be used", check())) == [
        Finding("disk", "ok", "20 GiB free"),
        Finding("disk", "error", "the disk cannot be used", "too small: make it larger"),
    ]


def test_a_bug_in_a_check_is_a_finding_too() -> None:
    def check() -> Iterator[Finding]:
        yield from ()
        raise ZeroDivisionError("by  zero")

    (finding,) = run_check("disk", "the disk cannot be used", check())
    assert finding.severity == "error"
    assert finding.message == "the disk cannot be used, or walkcut has a bug (ZeroDivisionError: by zero)"
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
    blanked = without_secrets(Finding("x", "error", "said hunter22", "not hunter22"), settings)
    assert (blanked.message, blanked.remedy) == ("said …", "not …")


def test_no_password_in_any_address_is_shown() -> None:
    blanked = without_secrets(Finding("x", "error", "at http://me:other@host:9090/a and http://host:1/b@c"), Settings())
    assert blanked.message == "at http://me:…@host:9090/a and http://host:1/b@c"


def test_a_very_short_secret_blanks_out_no_words() -> None:
    assert without_secrets(Finding("x", "ok", "a word"), Settings(basic_auth_pass="a")).message == "a word"
