"""A labelling project: its controls, its options, and its learned profile."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from walkcut.errors import RequestError, SettingsError, WalkcutError
from walkcut.hierarchy.granularity import Granularity, Level, parse_granularity
from walkcut.labelstudio.config import BrushControl
from walkcut.learning.profile import ProjectProfile


@dataclass(frozen=True)
class ProjectOptions:
    """Options of a project.

    Attributes:
        granularity: the granularity that pre-fills annotations
        max_regions: the largest number of regions in a prediction, at least 1
        min_area: the smallest region, as a fraction of the image in [0, 1)
        label_confidence: the confidence in [0, 1] that a learned label needs
    """

    granularity: Granularity = Level.AUTO
    max_regions: int = 40
    min_area: float = 0.0005
    label_confidence: float = 0.5

    def __post_init__(self) -> None:
        if self.max_regions < 1:
            raise SettingsError(f"max_regions is {self.max_regions}: use a whole number of at least 1")
        if not 0 <= self.min_area < 1:
            raise SettingsError(
                f"min_area is {self.min_area}: write a fraction of the image from 0 to 1, such as 0.001"
            )
        if not 0 <= self.label_confidence <= 1:
            raise SettingsError(f"label_confidence is {self.label_confidence}: write a number from 0 to 1, such as 0.5")

    @property
    def granularities(self) -> tuple[Granularity, ...]:
        """The granularities of a task's predictions, the default last: Label Studio pre-fills with the last one."""
        levels = (Level.COARSE, Level.MEDIUM, Level.FINE, Level.AUTO)
        return (*(level for level in levels if level != self.granularity), self.granularity)


@dataclass(frozen=True)
class Project:
    """A project: the controls that regions go to, its options, and the profile learned from its annotations."""

    controls: tuple[BrushControl, ...]
    options: ProjectOptions
    profile: ProjectProfile = field(default_factory=ProjectProfile)

    def with_profile(self, profile: ProjectProfile) -> "Project":
        """Return the project with a profile, whose granularity overrides the configured one."""
        granularity = profile.granularity or self.options.granularity
        return replace(self, profile=profile, options=replace(self.options, granularity=granularity))


def project_options(
    default: ProjectOptions, extra_params: Mapping[str, Any], attributes: Mapping[str, str]
) -> ProjectOptions:
    """Return a project's options: attributes of its brush tag override extra parameters, which override the `default`.

    Raises `RequestError` that names an option which cannot be used.
    """
    values = {**extra_params, **attributes}
    try:
        return ProjectOptions(
            _option(values, "granularity", parse_granularity, default.granularity),
            _option(values, "max_regions", int, default.max_regions),
            _option(values, "min_area", float, default.min_area),
            _option(values, "label_confidence", float, default.label_confidence),
        )
    except (ValueError, WalkcutError) as error:
        raise RequestError(f"the labelling config or the extra parameters cannot be used: {error}") from error


def project_from_controls(
    controls: tuple[BrushControl, ...], default: ProjectOptions, extra_params: Mapping[str, Any]
) -> Project:
    """Return a project with nothing learned; the first control's attributes count. Raises as `project_options`."""
    return Project(controls, project_options(default, extra_params, controls[0].options))


def _option(values: Mapping[str, Any], name: str, parse: Callable[[str], Any], default: Any) -> Any:
    """Return a parsed option, or the default when it is not set."""
    return parse(str(values[name])) if name in values else default
