"""Real photographs with human ground truth, where they are at hand: they are not ours to ship."""

import os
from pathlib import Path

import pytest

_BESIDE = Path(__file__).resolve().parents[3] / "shared" / "data" / "bsds500"
ROOT = Path(os.environ.get("TEST_BSDS500", _BESIDE))


def photographs(count: int) -> list[Path]:
    """The first images of BSDS500's validation set; fewer, or none, where it is absent."""
    return sorted((ROOT / "images" / "val").glob("*.jpg"))[:count]


needs_photographs = pytest.mark.skipif(
    not photographs(1), reason="no BSDS500 images: set TEST_BSDS500 to the folder that holds images/val"
)
