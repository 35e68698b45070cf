"""The settings of a deployment, read from environment variables."""

import difflib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from platformdirs import user_data_path
from pydantic import (
    AfterValidator,
    BeforeValidator,
    DirectoryPath,
    Field,
    FilePath,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from walkcut.auth import Credentials
from walkcut.errors import GranularityError, SettingsError
from walkcut.hierarchy.granularity import Granularity, Level, parse_granularity
from walkcut.models import AUTO, MODELS

_HOST = re.compile(r"[\w.:\[\]-]*[\w\]]")
_USER = re.compile(r"[^,]*@")


def _full_path(path: Any) -> Path:
    return Path(path).expanduser().resolve()


def _split(names: Any) -> Any:
    return [name.strip() for name in names.split(",") if name.strip()] if isinstance(names, str) else names


def _check_hosts(names: tuple[str, ...]) -> tuple[str, ...]:
    if not all(_HOST.fullmatch(name) for name in names):
        raise ValueError("write names or addresses, such as walkcut or walkcut:9090, without a scheme, user or path")
    return names


def _parse_granularity(value: Any) -> Any:
    try:
        return parse_granularity(value) if isinstance(value, str) else value
    except GranularityError as error:
        raise ValueError(str(error)) from error


_Directory = Annotated[DirectoryPath, BeforeValidator(_full_path)]
_File = Annotated[FilePath, BeforeValidator(_full_path)]
_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split), AfterValidator(_check_hosts)]
_Granularity = Annotated[Granularity, NoDecode, BeforeValidator(_parse_granularity)]
_LogLevel = Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(str.upper)]


@dataclass(frozen=True)
class Settings:
    """All settings, checked when made and in `dataclasses.replace`; secrets are left out of the printed form."""

    state_dir: Annotated[Path, AfterValidator(Path.expanduser)] = Field(
        default_factory=lambda: user_data_path("walkcut"), description="folder for the database and the cut trees"
    )
    database_url: str = Field(
        default="",
        repr=False,
        description="URL of a PostgreSQL or SQLite database; otherwise SQLite in the state folder",
    )
    model: str = Field(
        default=AUTO,
        description=f"{', '.join(MODELS)}, a diffusers folder, a hub id, an ONNX file, or a pair such as hed+dino; "
        "auto is hed if fetched, else classical",
    )
    weights_dir: _Directory | None = Field(default=None, description="folder of model weights; else the hub's cache")
    dtype: Literal["float32", "float16", "bfloat16"] = Field(default="float32", description="precision of the model")
    method: str = Field(
        default="",
        description="merge, merge+attention, ncut, ncut+merge, diffcut, diffseg or one of `walkcut presets`; "
        "else the model's best",
    )
    device: str = Field(default="cpu", description="cpu, cuda, cuda:1 …")
    granularity: _Granularity = Field(default=Level.AUTO, description="auto, coarse, medium, fine, 12, tau=0.4, k=3")
    max_regions: int = Field(default=40, ge=1, description="maximum number of regions in a prediction")
    min_area: float = Field(
        default=0.0005, ge=0, lt=1, description="area of the smallest region, as a fraction of the image"
    )
    label_confidence: float = Field(
        default=0.9, ge=0, le=1, description="fraction of learned names that must be right, from 0 to 1"
    )
    learning: bool = Field(default=True, description="whether to learn from annotations")
    sync_interval: float = Field(
        default=3600.0, ge=0, description="seconds between searches for lost webhooks; 0 for never"
    )
    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 for all")
    port: int = Field(default=9090, ge=0, le=65535, description="port to listen on")
    host_names: _Names = Field(
        default=(), description="names that clients reach walkcut by, such as walkcut; .example.org for all below it"
    )
    threads: int = Field(default=32, ge=9, description="threads of the server")
    basic_auth_user: str = Field(default="", description="user name that clients must send")
    basic_auth_pass: str = Field(default="", repr=False, description="password that clients must send")
    token: str = Field(default="", repr=False, description="bearer token that scripts and Prometheus may send")
    # A page of 30 tasks of 640x480, with four predictions and annotated masks each, has 30 * (0.9 + 3) MB.
    max_body_mb: int = Field(default=128, ge=1, description="largest request, in megabytes")
    predict_timeout: float = Field(default=80.0, ge=1, description="seconds for a request; Label Studio waits 100")
    segment_timeout: float = Field(
        default=300.0, ge=1, le=86400, description="seconds for an image before the model is restarted"
    )
    cache_bytes: int = Field(default=2 << 30, ge=0, description="disk space for cut trees, in bytes")
    label_studio_url: str = Field(default="", description="address of Label Studio")
    label_studio_api_key: str = Field(default="", repr=False, description="personal access token or legacy token")
    local_files_root: _Directory | None = Field(
        default=None, description="folder where Label Studio's local files are mounted"
    )
    allowed_hosts: _Names = Field(
        default=(), description="hosts, or host:port, of images, private ones too; comma-separated"
    )
    only_allowed_hosts: bool = Field(default=False, description="whether to refuse images on all other hosts")
    allow_private_hosts: bool = Field(default=False, description="whether to fetch images from private addresses")
    max_pixels: int = Field(default=100_000_000, ge=256, description="largest image, in pixels")
    max_bytes: int = Field(default=100_000_000, ge=1, description="largest image file, in bytes")
    fetch_timeout: float = Field(default=20.0, ge=0.1, description="seconds to fetch an image")
    ca_bundle: _File | None = Field(
        default=None, description="PEM file of the certificates to trust, instead of certifi's"
    )
    log_level: _LogLevel = Field(default="INFO", description="DEBUG, INFO, WARNING or ERROR")
    log_format: Literal["text", "json"] = Field(default="text", description="text, or json for a JSON object per line")

    @property
    def credentials(self) -> Credentials:
        """Credentials that callers of the backend must show."""
        return Credentials(self.basic_auth_user, self.basic_auth_pass, self.token)


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    return name.upper() if name.startswith("label_studio_") else f"WALKCUT_{name.upper()}"


class _Environment(BaseSettings):
    """The environment, of which variables without a value count as not set."""

    model_config = SettingsConfigDict(alias_generator=variable, case_sensitive=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _drop_blank(cls, values: dict[str, str]) -> dict[str, str]:
        return {name: value.strip() for name, value in values.items() if value.strip()}


_FIELDS: Mapping[str, FieldInfo] = vars(Settings)["__pydantic_fields__"]
_DEFINITIONS: dict[str, Any] = {name: (spec.annotation, spec) for name, spec in _FIELDS.items()}
_SettingsEnvironment = create_model("_SettingsEnvironment", __base__=_Environment, **_DEFINITIONS)


def read_settings() -> Settings:
    """Return the settings of the environment.

    Raises `SettingsError` that names each variable that cannot be used, its value, and the values that it takes.
    """
    try:
        return Settings(**dict(_SettingsEnvironment()))
    except ValidationError as error:
        raise SettingsError("; ".join(map(_describe_error, error.errors()))) from None


def _describe_error(error: Any) -> str:
    requirement = error["msg"].removeprefix("Value error, ")
    if error["type"] == "bool_parsing":
        requirement = "write true or false"
    value = _USER.sub("…@", str(error["input"]))
    return f"{error['loc'][0]}={value!r} cannot be used: {requirement[0].lower()}{requirement[1:]}"


def description(name: str) -> str:
    """Return the meaning of a setting and its values.

    >>> description("device")
    'cpu, cuda, cuda:1 …'
    """
    return str(_FIELDS[name].description)


def list_settings(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """Yield the variable, value and description of each setting; "-" when it is not set, "(set)" for secrets."""
    for name, spec in _FIELDS.items():
        text = _as_variable(getattr(settings, name))
        yield variable(name), text if spec.repr or text == "-" else "(set)", description(name)


def _as_variable(value: object) -> str:
    match value:
        case None | "" | ():
            return "-"
        case bool():
            return str(value).lower()
        case float():
            return f"{value:g}"
        case tuple():
            return _USER.sub("…@", ",".join(value))
        case str():
            return _USER.sub("…@", value)
    return str(value)


def unknown_variables() -> list[str]:
    """Return a message for each WALKCUT_ variable of the environment that is not a setting."""
    known = {variable(name) for name in _FIELDS}
    messages = []
    for unknown in sorted(name for name in os.environ if name.startswith("WALKCUT_") and name not in known):
        similar = difflib.get_close_matches(unknown.removeprefix("WALKCUT_").lower(), _FIELDS, 1)
        suggestion = f": did you mean {variable(similar[0])}?" if similar else ""
        messages.append(f"{unknown} is not a setting{suggestion}")
    return messages
