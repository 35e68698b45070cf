"""Systems: trees at granularities, and the papers' baselines."""

import numpy as np

from walkcut.backbones import load_backbone
from walkcut.evaluation.systems import System, TreeSystem, baseline_systems
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.segmentation.methods.flat import KMeans
from walkcut.segmentation.presets import Preset
from walkcut.segmentation.segmenter import Segmenter, load_segmenter


def test_a_tree_is_a_system_at_its_granularities() -> None:
    segmenter = Segmenter(load_backbone("classical"), Preset("s", KMeans(clusters=None)))
    system = TreeSystem(segmenter, (Level.AUTO, Segments(2)))
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    auto, two = system.segment(image, 5)
    assert isinstance(system, System)
    assert system.settings == ("auto", "2")
    assert (len(np.unique(auto)), len(np.unique(two))) == (5, 2)


def test_the_papers_baselines_run_on_the_same_model() -> None:
    systems = baseline_systems(load_segmenter("classical", "diffseg"))
    names = ["diffseg-table1-kmeans-c", "diffseg-table1-dbscan", "tokencut", "diffcut-table1-maskcut"]
    assert [system.name for system in systems] == names
    for system in systems:
        (labels,) = system.segment(np.zeros((32, 32, 3), np.uint8), 2)
        assert labels.shape == (32, 32)
