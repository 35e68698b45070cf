"""Segmentations against human truth: overlap tables, the scores made of them, data sets and published protocols."""

from walkcut.evaluation.boundaries import BoundaryCounts, boundaries, boundary_counts, boundary_scales
from walkcut.evaluation.contingency import coarsened, contingency_table
from walkcut.evaluation.metrics import (
    Counts,
    OdsOis,
    adjusted_rand_index,
    background_groups,
    covering,
    matched_counts,
    matched_segments,
    merge_background,
    ods_ois,
    oracle_merged,
    primary_classes,
    rand_index,
    variation_of_information,
)

__all__ = [
    "BoundaryCounts",
    "Counts",
    "OdsOis",
    "adjusted_rand_index",
    "background_groups",
    "boundaries",
    "boundary_counts",
    "boundary_scales",
    "coarsened",
    "contingency_table",
    "covering",
    "matched_counts",
    "matched_segments",
    "merge_background",
    "ods_ois",
    "oracle_merged",
    "primary_classes",
    "rand_index",
    "variation_of_information",
]
