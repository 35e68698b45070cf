"""walkcut's brush codec against Label Studio's own: `python -m benchmarks.brush`."""

import numpy as np
from label_studio_sdk.converter.brush import decode_rle, mask2rle

from benchmarks.timing import median_seconds
from walkcut.labelstudio.shapes import rle


def ragged_disc(height: int, width: int) -> np.ndarray:
    """Return a disc with a ragged outline, which has more runs than a mask drawn by hand."""
    y, x = np.mgrid[:height, :width]
    y, x = y - height / 2, x - width / 2
    jitter = np.random.default_rng(0).normal(0, 30, (height, width))
    return np.hypot(y, x) < height / 3 + 100 * np.sin(40 * np.arctan2(y, x)) + jitter


def main() -> None:
    """Print times and ratios."""
    mask = ragged_disc(3000, 4000)
    grey = mask.astype(np.uint8) * 255
    code = rle.encode(mask)
    assert code == list(mask2rle(grey)), "the two encoders disagree"
    assert (rle.decode(code, mask.shape) == mask).all()
    for name, ours, theirs in (
        ("encode", lambda: rle.encode(mask), lambda: mask2rle(grey)),
        ("decode", lambda: rle.decode(code, mask.shape), lambda: decode_rle(code)),
    ):
        fast, slow = median_seconds(ours), median_seconds(theirs, runs=3)
        print(
            f"{name} 4000×3000, {len(code)} bytes: walkcut {fast * 1e3:.1f} ms, "
            f"label_studio_sdk {slow * 1e3:.1f} ms, {slow / fast:.1f} times"
        )


if __name__ == "__main__":
    main()
