"""The settings of a deployment: the environment, read once."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from platformdirs import user_data_path

from walkcut.auth import Credentials
from walkcut.errors import SettingsError, WalkcutError
from walkcut.hierarchy.granularity import Granularity, Level, parse_granularity

_DTYPES = ("float32", "float16", "bfloat16")
_LOG_FORMATS = ("text", "json")
_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def _setting(variable: str, default: Any, parse: Callable[[str], Any], meaning: str, *, secret: bool = False) -> Any:
    """A field of `Settings` that is read from an environment variable."""
    metadata = {"variable": variable, "parse": parse, "meaning": meaning}
    if callable(default):
        return field(default_factory=default, metadata=metadata, repr=not secret)
    return field(default=default, metadata=metadata, repr=not secret)


def _switch(text: str) -> bool:
    words = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}
    if text.lower() not in words:
        raise ValueError("write true or false")
    return words[text.lower()]


def _at_least(least: float, parse: Callable[[str], Any]) -> Callable[[str], Any]:
    def parsed(text: str) -> Any:
        value = parse(text)
        if not value >= least:
            raise ValueError(f"it must be at least {least:g}")
        return value

    return parsed


def _day_at_most(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 86400:
        raise ValueError("write seconds from 1 to 86400")
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value < 1:
        raise ValueError("write a share of the image from 0 to 1, such as 0.001")
    return value


def _confidence(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError("write a number from 0 to 1, such as 0.5")
    return value


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _level(text: str) -> str:
    if text.upper() not in _LOG_LEVELS:
        raise ValueError(f"write one of {', '.join(_LOG_LEVELS)}")
    return text.upper()


def _log_format(text: str) -> str:
    if text not in _LOG_FORMATS:
        raise ValueError(f"write one of {', '.join(_LOG_FORMATS)}")
    return text


def _dtype(text: str) -> str:
    if text not in _DTYPES:
        raise ValueError(f"write one of {', '.join(_DTYPES)}")
    return text


def _existing_folder(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_dir():
        raise ValueError("there is no such folder")
    return path.resolve()


def _existing_file(text: str) -> Path:
    path = Path(text).expanduser()
    if not path.is_file():
        raise ValueError("there is no such file")
    return path.resolve()


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise ValueError("a port is a number from 0 to 65535")
    return value


@dataclass(frozen=True)
class Settings:
    """Everything that a deployment may set. Secrets never show in its printed form."""

    state_dir: Path = _setting(
        "WALKCUT_STATE_DIR",
        lambda: user_data_path("walkcut"),
        lambda text: Path(text).expanduser(),
        "folder for all that walkcut remembers",
    )
    database_url: str = _setting(
        "WALKCUT_DATABASE_URL", "", str, "PostgreSQL or SQLite by URL; else a file in that folder", secret=True
    )
    model: str = _setting("WALKCUT_MODEL", "classical", str, "classical, sd14, sd15, sd21, ssd1b, sdxl, dino, a folder")
    weights: Path | None = _setting(
        "WALKCUT_WEIGHTS_DIR", None, _existing_folder, "folder of models' weights; else the hub's cache"
    )
    dtype: str = _setting("WALKCUT_DTYPE", "float32", _dtype, "a model's precision: float32, float16 or bfloat16")
    method: str = _setting(
        "WALKCUT_METHOD", "", str, "merge, ncut, ncut+merge, diffcut, diffseg; else the best that the model can serve"
    )
    device: str = _setting("WALKCUT_DEVICE", "cpu", str, "cpu, cuda, cuda:1 …")
    granularity: Granularity = _setting(
        "WALKCUT_GRANULARITY", Level.AUTO, parse_granularity, "auto, coarse, medium, fine, 12, tau=0.4, k=3"
    )
    max_regions: int = _setting("WALKCUT_MAX_REGIONS", 40, _at_least(1, int), "most regions of a prediction")
    min_area: float = _setting("WALKCUT_MIN_AREA", 0.0005, _share, "smallest region, as a share of the image")
    label_confidence: float = _setting(
        "WALKCUT_LABEL_CONFIDENCE", 0.5, _confidence, "how sure a learned label must be, from 0 to 1"
    )
    learning: bool = _setting(
        "WALKCUT_LEARNING", default=True, parse=_switch, meaning="whether annotations teach anything at all"
    )
    sync_interval: float = _setting(
        "WALKCUT_SYNC_INTERVAL", 3600.0, _at_least(0, float), "how often to look for lost webhooks; 0 for never"
    )
    host: str = _setting("WALKCUT_HOST", "127.0.0.1", str, "address to listen on; 0.0.0.0 for all")
    port: int = _setting("WALKCUT_PORT", 9090, _port, "port to listen on")
    threads: int = _setting("WALKCUT_THREADS", 32, _at_least(9, int), "threads of the server")
    basic_auth_user: str = _setting("WALKCUT_BASIC_AUTH_USER", "", str, "user name that clients must send")
    basic_auth_pass: str = _setting("WALKCUT_BASIC_AUTH_PASS", "", str, "its password", secret=True)
    token: str = _setting("WALKCUT_TOKEN", "", str, "bearer token that scripts and Prometheus may send", secret=True)
    # A page of 30 tasks of 640x480, with four predictions and annotated masks each, has 30 * (0.9 + 3) MB.
    max_body_mb: int = _setting("WALKCUT_MAX_BODY_MB", 128, _at_least(1, int), "largest request in megabytes")
    predict_timeout: float = _setting(
        "WALKCUT_PREDICT_TIMEOUT", 80.0, _at_least(1, float), "seconds for one request; Label Studio gives up at 100"
    )
    segment_timeout: float = _setting(
        "WALKCUT_SEGMENT_TIMEOUT",
        300.0,
        _day_at_most,
        "seconds that the model may take for one image, or hang on it",
    )
    cache_bytes: int = _setting("WALKCUT_CACHE_BYTES", 2 << 30, _at_least(0, int), "disk for cut trees")
    label_studio_url: str = _setting("LABEL_STUDIO_URL", "", str, "address of Label Studio")
    label_studio_api_key: str = _setting(
        "LABEL_STUDIO_API_KEY", "", str, "personal access token or legacy token", secret=True
    )
    local_files_root: Path | None = _setting(
        "WALKCUT_LOCAL_FILES_ROOT", None, _existing_folder, "Label Studio's local files, where they are mounted"
    )
    allowed_hosts: tuple[str, ...] = _setting(
        "WALKCUT_ALLOWED_HOSTS",
        (),
        _names,
        "host or host:port that images may be on, at private addresses too, by commas",
    )
    only_allowed_hosts: bool = _setting(
        "WALKCUT_ONLY_ALLOWED_HOSTS",
        default=False,
        parse=_switch,
        meaning="whether images may be on these hosts and Label Studio alone",
    )
    allow_private_hosts: bool = _setting(
        "WALKCUT_ALLOW_PRIVATE_HOSTS",
        default=False,
        parse=_switch,
        meaning="whether images may be on private addresses",
    )
    max_pixels: int = _setting("WALKCUT_MAX_PIXELS", 100_000_000, _at_least(256, int), "largest image in pixels")
    max_bytes: int = _setting("WALKCUT_MAX_BYTES", 100_000_000, _at_least(1, int), "largest image file")
    fetch_timeout: float = _setting("WALKCUT_FETCH_TIMEOUT", 20.0, _at_least(0.1, float), "seconds for one image")
    ca_bundle: Path | None = _setting(
        "WALKCUT_CA_BUNDLE", None, _existing_file, "certificates to trust, a PEM file, instead of the usual ones"
    )
    log_level: str = _setting("WALKCUT_LOG_LEVEL", "INFO", _level, "DEBUG, INFO, WARNING or ERROR")
    log_format: str = _setting("WALKCUT_LOG_FORMAT", "text", _log_format, "text, or json with a line for each entry")

    @property
    def credentials(self) -> Credentials:
        """What callers of the backend must show."""
        return Credentials(self.basic_auth_user, self.basic_auth_pass, self.token)


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """The settings that the environment holds; empty variables count as not set.

    Raises `SettingsError` that names the variable, its value and what it takes.
    """
    chosen: dict[str, Any] = {}
    for spec in fields(Settings):
        text = environment.get(spec.metadata["variable"], "").strip()
        if not text:
            continue
        try:
            chosen[spec.name] = spec.metadata["parse"](text)
        except (ValueError, WalkcutError) as error:
            raise SettingsError(f"{spec.metadata['variable']} is {text!r}, which cannot be used: {error}") from error
    return Settings(**chosen)
