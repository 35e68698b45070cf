"""Label Studio's documents as values: label config, task, context, prediction. Text and numbers only, no I/O."""

from walkcut.labelstudio.annotations import AnnotatedRegion, annotated_pictures, annotated_regions, label_map
from walkcut.labelstudio.config import BrushTarget, brush_targets, named_labels
from walkcut.labelstudio.exports import exported_result
from walkcut.labelstudio.json_input import check_depth, read_object
from walkcut.labelstudio.predictions import (
    Prediction,
    Region,
    brush_region,
    prediction,
    region_id,
    status,
    withdrawn_region,
)
from walkcut.labelstudio.prompts import PROMPTS, STATUS_MARK, Box, Point, Prompt, prompts, typed_lines
from walkcut.labelstudio.submissions import Submission, read_moment, read_number, read_numbers, read_submission
from walkcut.labelstudio.tasks import Task, read_extra_params, read_task, read_tasks

__all__ = [
    "PROMPTS",
    "STATUS_MARK",
    "AnnotatedRegion",
    "Box",
    "BrushTarget",
    "Point",
    "Prediction",
    "Prompt",
    "Region",
    "Submission",
    "Task",
    "annotated_pictures",
    "annotated_regions",
    "brush_region",
    "brush_targets",
    "check_depth",
    "exported_result",
    "label_map",
    "named_labels",
    "prediction",
    "prompts",
    "read_extra_params",
    "read_moment",
    "read_number",
    "read_numbers",
    "read_object",
    "read_submission",
    "read_task",
    "read_tasks",
    "region_id",
    "status",
    "typed_lines",
    "withdrawn_region",
]
