from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import ValidationError

from walkcut.errors import SettingsError
from walkcut.hierarchy.granularity import Segments
from walkcut.settings import Settings, list_settings, read_settings, unknown_variables


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, _, _ in list_settings(Settings()):
        monkeypatch.delenv(variable, raising=False)


def read(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> Settings:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return read_settings()


def test_empty_variables_count_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings() == Settings()
    assert read(monkeypatch, {"WALKCUT_PORT": " ", "WALKCUT_WEIGHTS_DIR": "", "WALKCUT_HOST": "  "}) == Settings()


def test_only_variables_with_the_full_name_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch, {"HOST": "me", "PORT": "1", "walkcut_port": "2", "TOKEN": "x"}) == Settings()


def test_variables_are_read_into_their_types(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variables = {
        "WALKCUT_STATE_DIR": str(tmp_path / "new"),
        "WALKCUT_GRANULARITY": "12",
        "WALKCUT_MIN_AREA": "0.01",
        "WALKCUT_PORT": " 8000 ",
        "WALKCUT_LOCAL_FILES_ROOT": str(tmp_path),
        "WALKCUT_ALLOWED_HOSTS": "minio, nas.local",
        "WALKCUT_ALLOW_PRIVATE_HOSTS": "Yes",
        "WALKCUT_LOG_LEVEL": "debug",
        "LABEL_STUDIO_URL": "http://ls:8080",
    }
    settings = read(monkeypatch, variables)
    assert settings.state_dir == tmp_path / "new"
    assert settings.granularity == Segments(12)
    assert (settings.min_area, settings.port, settings.allow_private_hosts) == (0.01, 8000, True)
    assert settings.local_files_root == tmp_path.resolve()
    assert settings.allowed_hosts == ("minio", "nas.local")
    assert (settings.log_level, settings.label_studio_url) == ("DEBUG", "http://ls:8080")


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("WALKCUT_PORT", "70000", "less than or equal to 65535"),
        ("WALKCUT_PORT", "-1", "greater than or equal to 0"),
        ("WALKCUT_PORT", "http", "valid integer"),
        ("WALKCUT_THREADS", "1", "greater than or equal to 9"),
        ("WALKCUT_MAX_BODY_MB", "0", "greater than or equal to 1"),
        ("WALKCUT_MIN_AREA", "1", "less than 1"),
        ("WALKCUT_SYNC_INTERVAL", "nan", "greater than or equal to 0"),
        ("WALKCUT_GRANULARITY", "tiny", "use auto, coarse"),
        ("WALKCUT_ALLOW_PRIVATE_HOSTS", "maybe", "write true or false"),
        ("WALKCUT_LOCAL_FILES_ROOT", "/nowhere/at/all", "does not point to a directory"),
        ("WALKCUT_CA_BUNDLE", "/nowhere/at/all", "does not point to a file"),
        ("WALKCUT_DTYPE", "float8", "'float32', 'float16' or 'bfloat16'"),
        ("WALKCUT_LOG_LEVEL", "LOUD", "'DEBUG', 'INFO'"),
        ("WALKCUT_LOG_FORMAT", "xml", "'text' or 'json'"),
        ("WALKCUT_SEGMENT_TIMEOUT", "inf", "less than or equal to 86400"),
        ("WALKCUT_HOST_NAMES", "http://walkcut:9090", "write names or addresses, such as walkcut or walkcut:9090"),
        ("WALKCUT_HOST_NAMES", ".", "without a scheme, user or path"),
        ("WALKCUT_ALLOWED_HOSTS", "minio/images", "without a scheme, user or path"),
    ],
)
def test_an_unusable_value_is_an_error_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, remedy: str
) -> None:
    with pytest.raises(SettingsError, match=f"^{variable}='{value}' cannot be used: .*{remedy}"):
        read(monkeypatch, {variable: value})


def test_hosts_may_have_ports_and_be_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = ("[::1]:9000", "fe80::1", "nas_1.local:80", "bücher.example", ".example.org")
    assert read(monkeypatch, {"WALKCUT_ALLOWED_HOSTS": ",".join(hosts)}).allowed_hosts == hosts


def test_all_unusable_values_are_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"WALKCUT_PORT='x' .*; WALKCUT_THREADS='y' "):
        read(monkeypatch, {"WALKCUT_PORT": "x", "WALKCUT_THREADS": "y"})


def test_unknown_variables_are_named_with_the_nearest_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    before = unknown_variables()
    read(monkeypatch, {"WALKCUT_PROT": "1", "WALKCUT_XYZZY": "secret"})
    added = [message for message in unknown_variables() if message not in before]
    assert added == ["WALKCUT_PROT is not a setting: did you mean WALKCUT_PORT?", "WALKCUT_XYZZY is not a setting"]


def test_changed_settings_are_checked_too() -> None:
    assert replace(Settings(), port=1).port == 1
    with pytest.raises(ValidationError, match="65535"):
        replace(Settings(), port=70000)


def test_secrets_are_not_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql://me:hush@host/name"
    secrets = {"LABEL_STUDIO_API_KEY": "hush", "WALKCUT_BASIC_AUTH_PASS": "hush", "WALKCUT_TOKEN": "hush"}
    settings = read(monkeypatch, secrets | {"WALKCUT_DATABASE_URL": url})
    assert (settings.label_studio_api_key, settings.token, settings.database_url) == ("hush", "hush", url)
    listing = {variable: value for variable, value, _ in list_settings(settings)}
    assert listing["WALKCUT_TOKEN"] == listing["WALKCUT_DATABASE_URL"] == "(set)"
    assert listing["WALKCUT_METHOD"] == "-"
    assert "hush" not in repr(settings) + str(listing)
    listing = {variable: value for variable, value, _ in list_settings(Settings(label_studio_url="http://me:hush@ls"))}
    assert listing["LABEL_STUDIO_URL"] == "…@ls"
    with pytest.raises(SettingsError, match="WALKCUT_ALLOWED_HOSTS='…@ls' cannot be used"):
        read(monkeypatch, {"WALKCUT_ALLOWED_HOSTS": "http://me:hush@ls"})
