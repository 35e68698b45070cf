from pathlib import Path

import pytest

from walkcut.errors import SettingsError
from walkcut.hierarchy.granularity import Segments
from walkcut.settings import Settings, read_settings


def test_an_empty_environment_gives_the_defaults() -> None:
    assert read_settings({}) == read_settings({"WALKCUT_PORT": " "}) == Settings()


def test_variables_are_read_into_their_types(tmp_path: Path) -> None:
    settings = read_settings(
        {
            "WALKCUT_STATE_DIR": str(tmp_path / "new"),
            "WALKCUT_GRANULARITY": "12",
            "WALKCUT_MIN_AREA": "0.01",
            "WALKCUT_PORT": "8000",
            "WALKCUT_LOCAL_FILES_ROOT": str(tmp_path),
            "WALKCUT_ALLOWED_HOSTS": "minio, nas.local",
            "WALKCUT_ALLOW_PRIVATE_HOSTS": "Yes",
            "WALKCUT_LOG_LEVEL": "debug",
            "LABEL_STUDIO_URL": "http://ls:8080",
        }
    )
    assert settings.state_dir == tmp_path / "new"
    assert settings.granularity == Segments(12)
    assert (settings.min_area, settings.port, settings.allow_private_hosts) == (0.01, 8000, True)
    assert settings.local_files_root == tmp_path.resolve()
    assert settings.allowed_hosts == ("minio", "nas.local")
    assert (settings.log_level, settings.label_studio_url) == ("DEBUG", "http://ls:8080")


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("WALKCUT_PORT", "70000", "from 0 to 65535"),
        ("WALKCUT_PORT", "http", "invalid literal"),
        ("WALKCUT_THREADS", "1", "at least 9"),
        ("WALKCUT_MAX_BODY_MB", "0", "at least 1"),
        ("WALKCUT_MIN_AREA", "1", "share of the image"),
        ("WALKCUT_GRANULARITY", "tiny", "write auto, coarse"),
        ("WALKCUT_ALLOW_PRIVATE_HOSTS", "maybe", "write true or false"),
        ("WALKCUT_LOCAL_FILES_ROOT", "/nowhere/at/all", "no such folder"),
        ("WALKCUT_LOG_LEVEL", "LOUD", "DEBUG, INFO"),
        ("WALKCUT_LOG_FORMAT", "xml", "write one of text, json"),
        ("WALKCUT_SEGMENT_TIMEOUT", "inf", "seconds from 1 to 86400"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_remedy(variable: str, value: str, remedy: str) -> None:
    with pytest.raises(SettingsError, match=f"{variable} is '{value}'.*{remedy}"):
        read_settings({variable: value})


def test_secrets_do_not_show() -> None:
    url = "postgresql://me:hush@host/name"
    variables = {"LABEL_STUDIO_API_KEY": "hush", "WALKCUT_BASIC_AUTH_PASS": "hush", "WALKCUT_DATABASE_URL": url}
    settings = read_settings(variables)
    assert (settings.label_studio_api_key, settings.database_url) == ("hush", url)
    assert "hush" not in repr(settings)
