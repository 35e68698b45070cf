"""Samples of more than 8 bits -> 8 bits, as browsers show them, or stretched to the range of the content."""

import math
from collections.abc import Iterator
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Float64, Num, UInt8, UInt16

_MAX_WINDOWS: Final = 1 << 18
_BLOCK: Final = 1 << 22  # samples that are converted at a time
_RARE: Final = 0.001  # fraction of an image that may be lost to black or white
_TAIL: Final = 0.01  # fraction at each end that does not count for the span of the rest
_REACH: Final = 0.5  # spans of the content that single pixels may lie beyond it
_MAX_PLATEAUS: Final = 8
_FEW_VALUES: Final = 32  # drawn in flat colours, where every value is a plateau
_FAR: Final = 1.0  # spans of the rest between it and a plateau
_FAR_FROM_FEW: Final = 8.0  # the same, from few values
_MARGIN: Final = 4.0  # levels between the content and what was left out


class Samples(NamedTuple):
    """Values of one grey or three colours, the value of white, and the opacity (0 … 65535) of pixels if it varies."""

    colours: Num[np.ndarray, "y x c"]
    white: float
    opacity: UInt16[np.ndarray, "y x"] | None = None


class _Range(NamedTuple):
    """Values `low` … `high` become the levels `bottom` … `top`; values below them 0, and above them 255."""

    low: float
    high: float
    bottom: float = 0.0
    top: float = 255.0


def to_rgb(samples: Samples) -> UInt8[np.ndarray, "y x 3"]:
    """Return samples as RGB of 8 bits, composited over white; colours that cannot be seen have no effect."""
    colours, opacity = samples.colours, samples.opacity
    if opacity is None:
        levels = to_8_bits(colours, samples.white)
    else:
        is_visible = opacity > 0
        filler = colours[is_visible][:1] if is_visible.any() else 0
        levels = to_8_bits(np.where(is_visible[:, :, np.newaxis], colours, filler), samples.white)
        white = (65535 - opacity.astype(np.float32))[:, :, np.newaxis] / 65535
        levels = (levels * (1 - white) + 255 * white + 0.5).astype(np.uint8)
    return levels if levels.shape[2] == 3 else np.repeat(levels, 3, axis=2)


def to_8_bits(values: Num[np.ndarray, "y x c"], white: float) -> UInt8[np.ndarray, "y x c"]:
    """Map samples to 0 … 255: black is 0 and `white` is 255, as browsers show 16 bits (values / 257).

    If the content leaves [0, white] or spans less than half of it, its own range is stretched instead: 10 or 12
    bits of a microscope or scanner in a 16-bit file are nearly black in a browser, and annotators raise the brightness,
    so the segmentation needs the contrast. For content and what is left out of it, see `_content_range`. All channels
    share one range, which keeps the hues. NaN and -inf become 0, inf 255.
    """
    shown = _content_range(values)
    if shown.low >= 0 and shown.high <= white and not 0 < shown.high - shown.low < white / 2:
        shown = _Range(0.0, white)
    if values.dtype.kind == "u" and values.dtype.itemsize == 2:
        return _levels(np.arange(1 << 16).reshape(-1, 1, 1), shown).ravel()[values]
    levels = np.empty(values.shape, np.uint8)
    for rows in _blocks(values):
        levels[rows] = _levels(values[rows], shown)
    return levels


def _levels(values: Num[np.ndarray, "y x c"], shown: _Range) -> UInt8[np.ndarray, "y x c"]:
    clipped = np.clip(np.nan_to_num(values.astype(np.float64), nan=shown.low), shown.low, shown.high)
    gain = (shown.top - shown.bottom) / ((shown.high - shown.low) or 1)
    levels = ((clipped - shown.low) * gain + shown.bottom + 0.5).astype(np.uint8)
    levels[~(values >= shown.low)] = 0
    levels[values > shown.high] = 255
    return levels


def _content_range(values: Num[np.ndarray, "y x c"]) -> _Range:
    """Return the least and the largest value, without those that would take most of the range from the rest.

    Percentiles alone would cut off small bright parts, and keep a no-data value that covers a third of the image.
    Left out are only values far from the content, compared with how far its own values are apart: of single pixels,
    which differ from the median of their neighbours (hot and dead pixels), and values that many pixels share (no data,
    borders, scale bars). Areas that are left out keep a distance to the content, so that no two parts merge.
    """
    windows = _windows(values)
    medians = np.median(windows, axis=1)  # NaN where one of the nine is
    content = _without_plateaus(windows[np.isfinite(windows).all(axis=1)])
    if not content.size:
        content = windows[np.isfinite(windows)]
    if not content.size:
        return _Range(0.0, 0.0)
    least, largest = np.quantile(content, (_RARE, 1 - _RARE))
    reach = _REACH * (largest - least) or math.inf  # without any contrast to lose, nothing is left out
    low, high = _extremes(values, least - reach, largest + reach)
    below, above = (float(side.mean() > _RARE) for side in (~(medians >= low), medians > high))
    return _Range(low, high, _MARGIN * below, 255 - _MARGIN * above)


def _windows(values: Num[np.ndarray, "y x c"]) -> Float64[np.ndarray, "n 9"]:
    """Return the 3 x 3 neighbourhoods in each channel, of evenly spaced pixels if there are many."""
    step = math.ceil(math.sqrt(values.size / _MAX_WINDOWS))
    height, width = len(values) - 2, values.shape[1] - 2
    shifted = [values[dy : height + dy : step, dx : width + dx : step] for dy in range(3) for dx in range(3)]
    return np.stack(shifted, axis=-1).reshape(-1, 9).astype(np.float64)


def _without_plateaus(windows: Float64[np.ndarray, "n 9"]) -> Float64[np.ndarray, " m"]:
    """Return the medians of neighbourhoods without values at an end that many pixels share, far from the rest.

    Neighbourhoods that reach beyond the rest in part only go with it: interpolation mixes values at the edge.
    """
    medians = np.median(windows, axis=1)
    for _ in range(_MAX_PLATEAUS):
        kept = next(filter(None, (_rest(windows, medians, extreme) for extreme in _ends(medians))), None)
        if kept is None:
            break
        windows = windows[((windows >= kept[0]) & (windows <= kept[1])).all(axis=1)]
        medians = np.median(windows, axis=1)
    return medians


def _ends(values: Float64[np.ndarray, " n"]) -> tuple[float, ...]:
    return (float(values.min()), float(values.max())) if values.size else ()


def _rest(
    windows: Float64[np.ndarray, "n 9"], medians: Float64[np.ndarray, " n"], value: float
) -> tuple[float, float] | None:
    """Return the bounds of the values other than one that many share far from them; None if there is no such value."""
    rest = medians[(windows != value).all(axis=1)] if np.mean(medians == value) > _RARE else medians[:0]
    if not rest.size:
        return None
    low, high = np.quantile(rest, (_TAIL, 1 - _TAIL))
    reach = (high - low) * (_FAR if np.unique(rest).size > _FEW_VALUES else _FAR_FROM_FEW)
    return (low - reach, high + reach) if high > low and not low - reach <= value <= high + reach else None


def _extremes(values: Num[np.ndarray, "y x c"], least: float, largest: float) -> tuple[float, float]:
    """Return the smallest and the greatest of the finite values within two bounds."""
    low, high = math.inf, -math.inf
    for rows in _blocks(values):
        block = values[rows]
        within = block[(block >= least) & (block <= largest) & np.isfinite(block)]
        if within.size:
            low, high = min(low, float(within.min())), max(high, float(within.max()))
    return low, high


def _blocks(values: Num[np.ndarray, "y x c"]) -> Iterator[slice]:
    """Yield rows that together hold about `_BLOCK` samples, to bound the memory."""
    height = max(1, _BLOCK * len(values) // values.size)
    for start in range(0, len(values), height):
        yield slice(start, start + height)
