"""Result items of annotations on a small image."""

from typing import Any

import numpy as np

from tests.builders.label_config import make_image_tag, make_task_image
from walkcut.labelstudio.shapes import rle

SIZE = (8, 10)  # height, width: a pixel is 10 % of the width and 12.5 % of the height
IMAGE = make_task_image(make_image_tag("$photo"))
MASK = np.zeros(SIZE, bool)
MASK[2:5, 3:7] = True


def item(kind: str, label: str = "Car", **value: Any) -> dict[str, Any]:
    sizes = {"original_width": 10, "original_height": 8, "image_rotation": 0}
    names = {"id": "r1", "from_name": "brush", "to_name": "image", "type": kind}
    return {**sizes, **names, "value": {kind: [label], **value}}


def masked(mask: np.ndarray = MASK, label: str = "Car", **more: Any) -> dict[str, Any]:
    return item("brushlabels", label, format="rle", rle=rle.encode(mask)) | more
