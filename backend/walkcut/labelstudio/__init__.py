"""Label Studio: documents as values (labelling config, tasks, prompts, regions), brush codec, and API client."""

from walkcut.labelstudio import brush
from walkcut.labelstudio.annotations import annotated_image_names, annotated_regions, region_numbers
from walkcut.labelstudio.config import BrushControl, parse_brush_controls, semantic_labels
from walkcut.labelstudio.json_export import select_annotation
from walkcut.labelstudio.json_input import check_depth, read_object
from walkcut.labelstudio.predictions import (
    Prediction,
    Region,
    brush_region,
    deletion_marker,
    make_prediction,
    region_id,
    status_item,
)
from walkcut.labelstudio.prompts import PROMPTS, STATUS_MARK, Box, Point, Prompt, read_prompts, text_commands
from walkcut.labelstudio.tasks import (
    Submission,
    Task,
    parse_id,
    parse_ids,
    parse_project_id,
    parse_timestamp,
    read_extra_params,
    read_submission,
    read_task,
    read_tasks,
)

__all__ = [
    "PROMPTS",
    "STATUS_MARK",
    "Box",
    "BrushControl",
    "Point",
    "Prediction",
    "Prompt",
    "Region",
    "Submission",
    "Task",
    "annotated_image_names",
    "annotated_regions",
    "brush",
    "brush_region",
    "check_depth",
    "deletion_marker",
    "make_prediction",
    "parse_brush_controls",
    "parse_id",
    "parse_ids",
    "parse_project_id",
    "parse_timestamp",
    "read_extra_params",
    "read_object",
    "read_prompts",
    "read_submission",
    "read_task",
    "read_tasks",
    "region_id",
    "region_numbers",
    "select_annotation",
    "semantic_labels",
    "status_item",
    "text_commands",
]
