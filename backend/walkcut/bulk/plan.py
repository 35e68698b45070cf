"""Plan of a run: the settings that every image is processed with."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from walkcut.bulk.formats import Format, LabelStudioFormat, make_format
from walkcut.bulk.items import Item, ItemPrediction, RegionPrediction
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.images import DecodeLimits, FetchPolicy, LabelStudioAccess
from walkcut.inference.factory import make_access, make_fetch_policy, make_project_options, tree_folder
from walkcut.inference.predictor import regions_at_granularity
from walkcut.inference.project import Project, model_version, project_from_controls
from walkcut.labelstudio.config import BrushControl, parse_brush_controls
from walkcut.settings import Settings

_DEFAULT_CONTROL = BrushControl("brush", "image", "image", ("Region",), labels=("Region",))


@dataclass(frozen=True)
class Plan:
    """How every image of a run is processed; small, and may be sent to other processes."""

    project: Project
    granularities: tuple[Granularity, ...]  # of the predictions, the default last
    output_format: Format
    segmenter_version: str
    preset_name: str
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    policy: FetchPolicy = field(default_factory=FetchPolicy)
    access: LabelStudioAccess | None = None
    tree_dir: Path | None = None  # of the cache that trees are read from and written to

    @property
    def versions(self) -> tuple[str, ...]:
        """Model version of each granularity."""
        return tuple(
            model_version(self.segmenter_version, self.preset_name, self.project, granularity)
            for granularity in self.granularities
        )

    def predict(self, item: Item, tree: CutTree) -> ItemPrediction:
        """Return an image's regions at each granularity."""
        control = self.project.controls[item.control_index]
        predictions = [
            RegionPrediction(version, regions_at_granularity(tree, granularity, self.project, control))
            for granularity, version in zip(self.granularities, self.versions, strict=True)
        ]
        return ItemPrediction(item, tree.size, predictions)


@dataclass(frozen=True)
class PlanOptions:
    """Requested output: name of the format, labelling config (XML), granularities, tolerance of polygons in pixels.

    Without a labelling config all regions have the label Region; without granularities the settings' are used.
    """

    output_format: str
    label_config: str = ""
    granularities: Sequence[Granularity] = ()
    tolerance: float | None = None

    def plan(
        self,
        settings: Settings,
        segmenter_version: str,
        preset_name: str,
        *,
        project: Project | None = None,
        use_tree_cache: bool,
    ) -> Plan:
        """Return the plan for a segmenter's version and preset, with the labels and profile of a project if given.

        Raises `SettingsError` for a labelling config with several images per task.
        """
        if project is None:
            controls = parse_brush_controls(self.label_config) if self.label_config else (_DEFAULT_CONTROL,)
            project = project_from_controls(controls, make_project_options(settings), {})
        if len(project.controls) > 1:
            images = ", ".join(control.to_name for control in project.controls)
            raise SettingsError(
                f"the labelling config has several images per task ({images}), but files hold one: keep one of them, "
                "or import the tasks into Label Studio and use `walkcut prelabel --project`"
            )
        granularities = tuple(self.granularities) or self._default_granularities(project)
        project = replace(project, options=replace(project.options, granularity=granularities[-1]))
        output_format = make_format(self.output_format, project.controls[0], self.tolerance)
        return make_plan(
            settings,
            project,
            granularities,
            output_format,
            segmenter_version,
            preset_name,
            use_tree_cache=use_tree_cache,
        )

    def _default_granularities(self, project: Project) -> tuple[Granularity, ...]:
        if self.output_format == LabelStudioFormat.name:
            return project.options.granularities
        return (project.options.granularity,)


def make_plan(
    settings: Settings,
    project: Project,
    granularities: tuple[Granularity, ...],
    output_format: Format,
    segmenter_version: str,
    preset_name: str,
    *,
    use_tree_cache: bool,
) -> Plan:
    """Return a plan with the limits, access and tree cache of the settings."""
    return Plan(
        project,
        granularities,
        output_format,
        segmenter_version,
        preset_name,
        DecodeLimits(settings.max_pixels),
        make_fetch_policy(settings),
        make_access(settings),
        tree_folder(settings) if use_tree_cache else None,
    )
