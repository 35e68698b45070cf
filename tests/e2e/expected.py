"""What the pre-annotation of an image should be: the same question put to walkcut without Label Studio."""

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from PIL import Image

from tests.e2e.images import REPOSITORY, Mask


def granularity_of(model_version: str) -> str:
    """The granularity that a prediction's version begins with."""
    granularity, _, _ = model_version.partition(" ")
    return granularity


def expected_masks(image: bytes, model_version: str, folder: Path) -> list[Mask]:
    """The masks that `walkcut segment` gives for an image at the granularity of a model version.

    Its label PNG numbers all segments; a prediction holds the largest that are not too small.
    """
    source = folder / "image"
    source.write_bytes(image)
    command = [sys.executable, "-m", "walkcut", "segment", str(source), "--out", str(folder)]
    subprocess.run([*command, "--granularity", granularity_of(model_version)], check=True, capture_output=True)
    labels = np.asarray(Image.open(folder / "image.png"))
    most, least_area = _limits()
    masks = [np.asarray(labels == number) for number in np.unique(labels)]
    large = [mask for mask in masks if mask.mean() >= least_area]
    return sorted(large, key=np.sum, reverse=True)[:most]


def _limits() -> tuple[int, float]:
    """The most regions, and the smallest share of the image, that the labelling config asks for."""
    config = ET.parse(REPOSITORY / "labelstudio_config" / "walkcut.xml")
    control = next(config.iter("BrushLabels"))
    return int(control.attrib["max_regions"]), float(control.attrib["min_area"])
