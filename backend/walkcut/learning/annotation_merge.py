"""Segments merged by the regions that annotators drew: the oracle merge (DWC supplement A) as a prediction."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from walkcut.hierarchy.granularity import Level
from walkcut.labelstudio.annotations import region_numbers
from walkcut.labelstudio.predictions import Region, connected_regions
from walkcut.labelstudio.tasks import TaskImage
from walkcut.learning.feedback import AnnotatedImage
from walkcut.learning.oracle_merge import majority_region

_FULLY_ANNOTATED_FRACTION = 0.98  # fraction of the image: an annotation of more leaves nothing to merge


def merge_by_annotation(images: Sequence[AnnotatedImage], min_area: float) -> list[tuple[TaskImage, list[Region]]]:
    """Return each image's fine segments, merged by the drawn regions; leave out images with all or nothing drawn.

    Segments that no region overlaps stay as they are, if they cover at least the fraction `min_area` of the image.
    """
    return [(image.task_image, regions) for image in images if (regions := _merge_image(image, min_area))]


def _merge_image(image: AnnotatedImage, min_area: float) -> list[Region]:
    numbers = region_numbers(image.regions, image.tree.size)
    if not numbers.any() or np.count_nonzero(numbers) > _FULLY_ANNOTATED_FRACTION * numbers.size:
        return []
    segments = image.tree.labels(Level.FINE).astype(np.int64)
    owners = majority_region(segments, numbers)[segments]
    merged = [replace(region, mask=owners == number) for number, region in enumerate(image.regions, 1)]
    placeholders = image.task_image.tag.placeholders
    unclaimed = [
        Region(segments == segment, placeholders[index % len(placeholders)], 0.0)
        for index, segment in enumerate(np.unique(segments[owners == 0]))
    ]
    drawn = connected_regions((region for region in merged if region.mask.any()), image.task_image)
    others = connected_regions(unclaimed, image.task_image)
    return [*drawn, *(region for region in others if region.mask.mean() >= min_area)]
