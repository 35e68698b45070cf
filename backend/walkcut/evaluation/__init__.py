"""Evaluation against human ground truth: metrics, data sets, the papers' protocols, baselines and the report."""

from walkcut.evaluation.boundaries import BoundaryCounts, boundaries, boundary_counts, boundary_ods_ois
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
    "boundary_ods_ois",
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
