"""Label Studio's documents as values: label config, task, context, prediction. Text and numbers only, no I/O."""

from walkcut.labelstudio.config import BrushTarget, brush_targets
from walkcut.labelstudio.contexts import typed_lines
from walkcut.labelstudio.predictions import Prediction, Region, brush_region, prediction, region_id
from walkcut.labelstudio.tasks import Task, read_extra_params, read_tasks

__all__ = [
    "BrushTarget",
    "Prediction",
    "Region",
    "Task",
    "brush_region",
    "brush_targets",
    "prediction",
    "read_extra_params",
    "read_tasks",
    "region_id",
    "typed_lines",
]
