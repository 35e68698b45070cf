from dataclasses import replace

import numpy as np
import pytest

from tests.builders.label_config import make_task_image
from tests.builders.scenes import quarters
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.labelstudio.config import parse_image_tags
from walkcut.labelstudio.predictions import Region
from walkcut.labelstudio.tasks import TaskImage
from walkcut.learning.annotation_merge import merge_by_annotation
from walkcut.learning.feedback import AnnotatedImage
from walkcut.segmentation.segmenter import load_segmenter

SIZE = (40, 60)
LABELS = '<Label value="Region" neutral="true"/><Label value="Car"/>'
CONFIG = f'<View><Image name="im" value="$photo"/><BrushLabels name="b" toName="im">{LABELS}</BrushLabels></View>'


@pytest.fixture(scope="module")
def tree() -> CutTree:
    return load_segmenter("classical").segment(quarters(*SIZE))


@pytest.fixture(scope="module")
def task_image() -> TaskImage:
    (image_tag,) = parse_image_tags(CONFIG)
    return make_task_image(image_tag)


def drawn(rows: slice, columns: slice) -> Region:
    mask = np.zeros(SIZE, bool)
    mask[rows, columns] = True
    return Region(mask, "Car", id="r", modified=True)


def test_a_stroke_takes_its_segment_and_all_others_stay(tree: CutTree, task_image: TaskImage) -> None:
    image = AnnotatedImage(task_image, tree, [drawn(slice(2, 4), slice(2, 20))])
    ((merged_image, (car, *others)),) = merge_by_annotation([image], min_area=0.0)
    assert merged_image is task_image
    assert (car.label, {region.label for region in others}) == ("Car", {"Region"})
    assert (car.modified, {region.modified for region in others}) == (True, {False})
    assert car.mask[2, 2]
    assert car.mask.mean() == pytest.approx(0.25, abs=0.02)
    assert np.sum([car.mask, *(region.mask for region in others)], axis=0).tolist() == np.ones(SIZE).tolist()


def test_without_neutral_labels_other_segments_have_none(tree: CutTree, task_image: TaskImage) -> None:
    image = AnnotatedImage(
        replace(task_image, tag=replace(task_image.tag, neutral_labels=())), tree, [drawn(slice(2, 4), slice(2, 20))]
    )
    ((_, (car, *others)),) = merge_by_annotation([image], min_area=0.0)
    assert (car.label, {region.label for region in others}) == ("Car", {""})


def test_small_segments_without_a_region_are_left_out(tree: CutTree, task_image: TaskImage) -> None:
    image = AnnotatedImage(task_image, tree, [drawn(slice(2, 4), slice(2, 20))])
    ((_, regions),) = merge_by_annotation([image], min_area=0.9)
    assert [region.label for region in regions] == ["Car"]


def test_nothing_is_merged_if_all_or_nothing_is_drawn(tree: CutTree, task_image: TaskImage) -> None:
    everything = AnnotatedImage(task_image, tree, [drawn(slice(None), slice(None))])
    assert merge_by_annotation([everything, AnnotatedImage(task_image, tree, [])], min_area=0.0) == []
