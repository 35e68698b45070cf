"""Plan of a run: the settings that every image is processed with."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from walkcut.bulk.formats import FORMATS, Format, LabelStudioFormat, make_format
from walkcut.bulk.items import Item, ItemPrediction, RegionPrediction
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Granularity
from walkcut.images import DecodeLimits, FetchPolicy, LabelStudioAccess
from walkcut.inference.factory import make_access, make_fetch_policy, make_project_options, tree_folder
from walkcut.inference.predictor import regions_at_granularity
from walkcut.inference.project import Project, make_project, model_version
from walkcut.labelstudio.config import ControlTag, ImageTag, parse_image_tags
from walkcut.settings import Settings

_ONE_GRANULARITY = frozenset(FORMATS) - {LabelStudioFormat.name}
_DEFAULT_IMAGE = ImageTag(
    "image", "$image", (ControlTag("brush", "brush", ("Region",), "brush"),), neutral_labels=("Region",)
)


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
    path_root: str = ""  # names of images are relative to it, else to their source

    @property
    def versions(self) -> tuple[str, ...]:
        """Model version of each granularity."""
        return tuple(
            model_version(self.segmenter_version, self.project, granularity) for granularity in self.granularities
        )

    def predict(self, item: Item, tree: CutTree) -> ItemPrediction:
        """Return an image's regions at each granularity."""
        image = item.image(self.project.image_tags)
        predictions = [
            RegionPrediction(version, regions_at_granularity(tree, granularity, self.project, image))
            for granularity, version in zip(self.granularities, self.versions, strict=True)
        ]
        return ItemPrediction(item, tree.size, predictions)


def make_plan(
    settings: Settings,
    segmenter_version: str,
    preset_name: str,
    project: Project,
    output_format: Format,
    granularities: Sequence[Granularity] = (),
    *,
    use_tree_cache: bool,
    path_root: str = "",
) -> Plan:
    """Return a plan with the limits, access and tree cache of the settings.

    Without granularities the project's are used: for Label Studio's import files all, else the default. Raises
    `SettingsError` for a `path_root` and a format that has no names of images, and for several granularities and a
    format that takes one.
    """
    if path_root and output_format.name == LabelStudioFormat.name:
        raise SettingsError(f"the format {output_format.name} has no names of images: leave out --path-root")
    if len(granularities) > 1 and output_format.name in _ONE_GRANULARITY:
        texts = ", ".join(map(str, granularities))
        raise SettingsError(
            f"the format {output_format.name} takes one granularity, not {texts}: give --granularity once"
        )
    options = project.options
    default = options.granularities if output_format.name == LabelStudioFormat.name else (options.granularity,)
    granularities = tuple(granularities) or default
    return Plan(
        replace(project, options=replace(options, granularity=granularities[-1])),
        granularities,
        output_format,
        segmenter_version,
        preset_name,
        DecodeLimits(settings.max_pixels),
        make_fetch_policy(settings),
        make_access(settings),
        tree_folder(settings) if use_tree_cache else None,
        path_root,
    )


def project_of_files(settings: Settings, label_config: str) -> Project:
    """Return a project that has learned nothing, for a labelling config (XML) or, if empty, one label: Region."""
    image_tags = parse_image_tags(label_config) if label_config else (_DEFAULT_IMAGE,)
    return make_project(image_tags, make_project_options(settings), {})


def format_of_files(name: str, project: Project, tolerance: float | None = None) -> Format:
    """Return a format by its name, with the largest distance of polygons from a region's border, in pixels.

    Raises `SettingsError` for a project with several images per task.
    """
    if len(project.image_tags) > 1:
        images = ", ".join(image_tag.name for image_tag in project.image_tags)
        raise SettingsError(
            f"the labelling config has several images per task ({images}), but files hold one: keep one of them, "
            "or import the tasks into Label Studio and use `walkcut prelabel --project`"
        )
    return make_format(name, project.image_tags[0], tolerance)
