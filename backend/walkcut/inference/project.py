"""A labelling project: its images, its options, and its learned profile."""

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from walkcut.errors import GranularityError, RequestError, SettingsError, WalkcutError
from walkcut.hierarchy.granularity import Granularity, Level, parse_granularity
from walkcut.labelstudio.config import OUTPUT, ImageTag, parse_image_tags
from walkcut.learning.profile import ProjectProfile

_DIGEST = re.compile(r"[0-9a-f]{6}")


@dataclass(frozen=True)
class ProjectOptions:
    """Options of a project."""

    granularity: Granularity = Level.AUTO  # that pre-fills annotations
    max_regions: int = 40  # in a prediction, at least 1
    min_area: float = 0.0005  # of a region, as a fraction of the image in [0, 1)
    label_confidence: float = 0.9  # fraction of learned names to be right, in [0, 1]; with less evidence none is given

    def __post_init__(self) -> None:
        if self.max_regions < 1:
            raise SettingsError(f"max_regions is {self.max_regions}: use a whole number of at least 1")
        if not 0 <= self.min_area < 1:
            raise SettingsError(
                f"min_area is {self.min_area}: write a fraction of the image from 0 to 1, such as 0.001"
            )
        if not 0 <= self.label_confidence <= 1:
            raise SettingsError(f"label_confidence is {self.label_confidence}: write a number from 0 to 1, such as 0.9")

    @property
    def granularities(self) -> tuple[Granularity, ...]:
        """The granularities of a task's predictions, the default last: Label Studio pre-fills with the last one."""
        levels = (Level.COARSE, Level.MEDIUM, Level.FINE, Level.AUTO)
        return (*(level for level in levels if level != self.granularity), self.granularity)


@dataclass(frozen=True)
class Project:
    """A project: the images of its labelling config, its options, and the profile learned from its annotations."""

    image_tags: tuple[ImageTag, ...]
    options: ProjectOptions
    profile: ProjectProfile = field(default_factory=ProjectProfile)

    def with_profile(self, profile: ProjectProfile) -> "Project":
        """Return the project with a profile, whose granularity overrides the configured one."""
        granularity = profile.granularity or self.options.granularity
        return replace(self, profile=profile, options=replace(self.options, granularity=granularity))


def model_version(segmenter_version: str, project: Project, granularity: Granularity) -> str:
    """Return the model version of predictions, which changes with every setting that changes them.

    It is the title of a tab in Label Studio, which shows up to 15 characters whole: the granularity, or `learned` for
    one that was, and six digits.
    """
    settings = f"{segmenter_version} {project.image_tags} {project.options} {project.profile.digest}"
    digest = hashlib.sha256(settings.encode()).hexdigest()[:6]
    return f"{'learned' if granularity == project.profile.granularity else granularity} {digest}"


def is_model_version(text: object) -> bool:
    """Return whether a text is one of walkcut's model versions.

    >>> is_model_version("auto 0123ab"), is_model_version("tau=0.4 0123ab"), is_model_version("sam 2")
    (True, True, False)
    """
    name, _, digest = str(text).partition(" ")
    try:
        return _DIGEST.fullmatch(digest) is not None and (name == "learned" or bool(parse_granularity(name)))
    except GranularityError:
        return False


_PARSERS: dict[str, Callable[[str], Any]] = {
    "granularity": parse_granularity,
    "max_regions": int,
    "min_area": float,
    "label_confidence": float,
}


def project_from_config(label_config: str, default: ProjectOptions, extra_params: Mapping[str, Any]) -> Project:
    """Return the project of a labelling config and the model's extra parameters, with nothing learned.

    Raises `LabelConfigError` or `RequestError`.
    """
    image_tags = parse_image_tags(label_config, str(extra_params.get(OUTPUT) or ""))
    return make_project(image_tags, default, extra_params)


def make_project(image_tags: tuple[ImageTag, ...], default: ProjectOptions, extra_params: Mapping[str, Any]) -> Project:
    """Return a project with nothing learned.

    Attributes of the first control override the extra parameters, which override the `default`. Raises `RequestError`
    that names an option which cannot be used.
    """
    attributes = {name.lower(): value for name, value in image_tags[0].options.items()}
    values = {**extra_params, **attributes}
    try:
        options = {name: _parse_option(name, values[name]) for name in _PARSERS if name in values}
        return Project(image_tags, replace(default, **options))
    except WalkcutError as error:
        sources = {"the extra parameters": extra_params, f"attributes of {image_tags[0].controls[0]}": attributes}
        given = " or ".join(source for source, options in sources.items() if options.keys() & _PARSERS.keys())
        raise RequestError(f"{given} cannot be used: {error}") from error


def _parse_option(name: str, value: object) -> Any:
    """Return the value of an option. Raises `SettingsError` or `GranularityError` for one that cannot be used."""
    try:
        return _PARSERS[name](str(value))
    except ValueError as error:
        kind = "whole number" if _PARSERS[name] is int else "number"
        example = getattr(ProjectOptions, name)
        raise SettingsError(f"{name} is {str(value)[:40]!r}: write a {kind}, such as {example}") from error
