"""Model versions of predictions."""

import hashlib

from walkcut.hierarchy.granularity import Granularity
from walkcut.inference.project import Project


def model_version(segmenter_version: str, preset_name: str, project: Project, granularity: Granularity) -> str:
    """Return the model version of predictions, which changes with every setting that changes them."""
    settings = f"{segmenter_version} {project.controls} {project.options} {project.profile.digest}"
    digest = hashlib.sha256(settings.encode()).hexdigest()[:8]
    return f"{granularity}-walkcut-{preset_name}-{digest}"
