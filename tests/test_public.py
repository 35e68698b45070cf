import subprocess
import sys

import pytest

import walkcut
import walkcut.labelstudio
import walkcut.segmentation

PUBLIC = [
    "PRESETS",
    "CutTree",
    "Preset",
    "Segmenter",
    "WalkcutError",
    "load_backbone",
    "load_segmenter",
    "oracle_merge",
    "oracle_merge_tree",
    "parse_granularity",
]


def test_the_public_names_are_those_that_are_promised() -> None:
    assert walkcut.__all__ == PUBLIC
    assert dir(walkcut) == sorted(PUBLIC)
    assert all(getattr(walkcut, name) is not None for name in PUBLIC)
    assert {"diffcut", "diffseg", "pamr"} <= set(walkcut.segmentation.__all__)
    assert callable(walkcut.labelstudio.shapes.rle.encode)
    assert callable(walkcut.labelstudio.shapes.rle.decode)


def test_unknown_names_are_an_error() -> None:
    with pytest.raises(AttributeError, match="module 'walkcut' has no attribute 'grow_tree'"):
        walkcut.grow_tree  # noqa: B018


def test_names_are_loaded_when_they_are_first_used() -> None:
    code = """
import sys, walkcut
assert not {"torch", "numpy", "walkcut.segmentation"} & set(sys.modules)
from walkcut import parse_granularity
assert not {"torch", "numpy"} & set(sys.modules)
from walkcut import load_segmenter
assert "torch" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
