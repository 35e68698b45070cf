"""Borders at full size: labels of a small grid, brought to the image's size with borders on its edges."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int64, Integer, UInt8, UInt16
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from walkcut.backbones.resize import resize

_COLOUR = 0.07  # standard deviation of the votes' colours, in CIELAB with L from 0 to 1
# CIELAB / 100 as a linear function of sRGB in [0, 1], fitted to photographs: differences of colours need no more.
_LAB = ((0.33, 0.97, 0.51), (0.58, -1.36, 0.75), (0.11, 0.40, -1.30))  # of red, green and blue
_CANDIDATES = 4  # labels that are compared at a pixel; windows hardly hold more
_MAX_RATIO = 2.2  # between the sizes of two levels of the pyramid
_CHUNK = 1 << 16  # pixels whose votes are counted at a time
_MAX_INT16 = 1 << 15


@dataclass(frozen=True)
class Window:
    """The discs of `radius` pixels whose votes are counted, `iterations` times, less than `radius` from a border."""

    radius: int
    iterations: int


_FIRST = Window(radius=4, iterations=2)  # on the grid's next size: wider windows fit their borders no better
_NEXT = Window(radius=3, iterations=2)  # where borders only become smoother


def refine_borders(
    labels: Integer[np.ndarray, "h w"], image: UInt8[Tensor, "y x 3"], *, reach: int = 0
) -> UInt16[np.ndarray, "y x"]:
    """Return labels of a smaller grid at the image's size, with borders that follow its edges.

    From the grid to the image the size doubles at each step. There each pixel near a border takes the label that most
    of the pixels around it have, weighted by Gaussians of distance and of colour difference (a joint bilateral filter,
    Kopf et al. 2007, of the labels): where the image is smooth, borders become so too, and where it is sharp, they lie
    on its edges. `reach` is how far the labels' borders may lie beside the edges, in cells of the grid: they move that
    far before they are brought to a finer grid. Components smaller than a cell take the label around them.
    """
    cells, dtype = math.prod(labels.shape), torch.int16 if labels.max() < _MAX_INT16 else torch.int32
    refined = torch.from_numpy(labels.astype(np.int64)).to(image.device, dtype)
    if reach:
        near = _near_borders(refined, reach - 1)
        refined = _vote(refined, _shrunk(image, labels.shape), near, Window(reach, reach))
    for step, pixels in enumerate(_pyramid(image, labels.shape)):
        refined, window = _nearest(refined, pixels.shape[:2]), _NEXT if step else _FIRST
        near = _near_borders(refined, window.radius - 1)
        refined = _without_specks(_vote(refined, pixels, near, window), near, refined.numel() / cells)
    return refined.numpy(force=True).astype(np.uint16)


def _pyramid(image: UInt8[Tensor, "y x 3"], grid: tuple[int, ...]) -> Iterator[UInt8[Tensor, "_ _ 3"]]:
    """Yield the image halved until it is at most about twice as large as the grid, the smallest first."""
    if max(side / cells for side, cells in zip(image.shape, grid, strict=False)) > _MAX_RATIO:
        yield from _pyramid(_halved(image), grid)
    yield image


def _halved(image: UInt8[Tensor, "y x 3"]) -> UInt8[Tensor, "_ _ 3"]:
    """Return the means of 2×2 pixels, which blur no edge beyond them; a last odd row or column counts twice."""
    height, width, _ = image.shape
    even = torch.cat([image, image[-1:]]) if height % 2 else image
    even = torch.cat([even, even[:, -1:]], 1) if width % 2 else even
    sums = even[::2, ::2].short() + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]
    return ((sums + 2) // 4).to(torch.uint8)


def _shrunk(image: UInt8[Tensor, "y x 3"], grid: tuple[int, ...]) -> UInt8[Tensor, "h w 3"]:
    pixels = resize(image, (grid[0], grid[1]), white=255)[0].round().clamp(0, 255)
    return pixels.to(torch.uint8).permute(1, 2, 0).contiguous()


def _nearest(labels: Int[Tensor, "h w"], size: tuple[int, ...]) -> Int[Tensor, "y x"]:
    """Return at each pixel of `size` the label of the cell that contains its centre."""
    rows, columns = (
        (2 * torch.arange(pixels, device=labels.device) + 1) * cells // (2 * pixels)
        for cells, pixels in zip(labels.shape, size, strict=True)
    )
    return labels[rows][:, columns]


def _vote(
    labels: Int[Tensor, "y x"], image: UInt8[Tensor, "y x 3"], near: Int64[Tensor, " n"], window: Window
) -> Int[Tensor, "y x"]:
    """Return labels after the votes of all rounds for the pixels `near` borders."""
    voted = labels.clone()
    for _ in range(window.iterations):
        winners = [_winners(voted, image, pixels, window) for pixels in near.split(_CHUNK)]
        voted.view(-1)[near] = torch.cat(winners)
    return voted


def _near_borders(labels: Int[Tensor, "y x"], distance: int) -> Int64[Tensor, " n"]:
    """Return the pixels at most `distance`, 1 or more, from one of another label, as indices in reading order."""
    near = torch.zeros(labels.shape, dtype=torch.bool, device=labels.device)
    for labels_across, near_across in ((labels, near), (labels.T, near.T)):
        differ = labels_across[1:] != labels_across[:-1]
        near_across[1:] |= differ
        near_across[:-1] |= differ
    y, x = near.nonzero(as_tuple=True)
    for down, right in _disc(distance - 1):
        near[(y + down).clamp(0, len(near) - 1), (x + right).clamp(0, near.shape[1] - 1)] = True
    return near.view(-1).nonzero()[:, 0]


def _disc(radius: int) -> list[tuple[int, int]]:
    steps = range(-radius, radius + 1)
    return [(y, x) for y, x in product(steps, steps) if y * y + x * x <= radius * radius + 1]


def _winners(
    labels: Int[Tensor, "y x"], image: UInt8[Tensor, "y x 3"], pixels: Int64[Tensor, " n"], window: Window
) -> Int[Tensor, " n"]:
    """Return the label of each of these pixels that gets most of the votes in its window; it keeps its own in ties."""
    around, weights = _votes(labels, image, pixels, window)
    best = candidate = labels.view(-1)[pixels]
    most = torch.zeros(len(pixels), device=labels.device)
    for _ in range(_CANDIDATES):
        votes = weights * (around == candidate)
        total = votes.sum(0)
        best, most = torch.where(total > most, candidate, best), torch.maximum(total, most)
        weights -= votes
        candidate = around.gather(0, weights.max(0).indices[None])[0]
    return best


def _votes(
    labels: Int[Tensor, "y x"], image: UInt8[Tensor, "y x 3"], pixels: Int64[Tensor, " n"], window: Window
) -> tuple[Int[Tensor, "o n"], Float[Tensor, "o n"]]:
    """Return the labels in the window around each of these pixels, and the weights of their votes."""
    (height, width), flat, colours = labels.shape, labels.view(-1), image.view(-1, 3)
    to_lab = torch.tensor(_LAB, device=image.device) / (255 * math.sqrt(2) * _COLOUR)
    y, x, own = pixels // width, pixels % width, colours.index_select(0, pixels).float()
    around, exponents = [], []
    for down, right in _disc(window.radius):
        index = (y + down).clamp_(0, height - 1).mul_(width).add_((x + right).clamp_(0, width - 1))
        difference = colours.index_select(0, index).float().sub_(own) @ to_lab
        distance = (down**2 + right**2) / (2 * (window.radius / 2) ** 2)
        around.append(flat.index_select(0, index))
        exponents.append(difference.square_().sum(1).add_(distance))
    return torch.stack(around), torch.stack(exponents).neg_().exp_()


def _without_specks(labels: Int[Tensor, "y x"], near: Int64[Tensor, " n"], min_area: float) -> Int[Tensor, "y x"]:
    """Give components that lie among the pixels `near` borders, and are smaller than an area, the label around them."""
    flat, index = labels.view(-1).numpy(force=True), near.numpy(force=True)
    specks = index[_is_speck(flat, index, labels.shape[1], min_area)]
    if not specks.size:
        return labels
    flat = _filled(flat.copy(), specks, labels.shape[1])
    return torch.from_numpy(flat).to(labels.device).view(labels.shape)


def _is_speck(
    labels: Integer[np.ndarray, " p"], near: Int64[np.ndarray, " n"], width: int, min_area: float
) -> Bool[np.ndarray, " n"]:
    """Return which of the pixels `near` borders are in components of fewer than `min_area` pixels of those alone."""
    goes_on = np.zeros(len(near), np.bool_)  # where the component has pixels elsewhere
    edges: list[Int64[np.ndarray, "2 _"]] = []
    for neighbour, exists in _neighbours(near, width, len(labels)):
        pixel = np.flatnonzero(exists)
        pixel = pixel[labels[near[pixel]] == labels[neighbour[pixel]]]
        position = np.searchsorted(near, neighbour[pixel]).clip(max=len(near) - 1)
        is_near = near[position] == neighbour[pixel]
        goes_on[pixel[~is_near]] = True
        edges.append(np.stack([pixel[is_near], position[is_near]]))
    rows, columns = np.concatenate(edges, 1)
    graph = coo_array((np.ones(len(rows), np.bool_), (rows, columns)), (len(near), len(near)))
    _, component = connected_components(graph, directed=False)
    is_small = (np.bincount(component) < min_area) & (np.bincount(component, goes_on) == 0)
    return np.asarray(is_small[component])


def _filled(labels: Integer[np.ndarray, " p"], holes: Int64[np.ndarray, " n"], width: int) -> Integer[np.ndarray, " p"]:
    """Give pixels in `holes` the label of a pixel beside them that is in none, from the outside inwards."""
    is_hole = np.zeros(len(labels), np.bool_)
    is_hole[holes] = True
    while True:
        filled = [
            (holes[usable], labels[neighbour[usable]])
            for neighbour, exists in _neighbours(holes, width, len(labels))
            for usable in [np.flatnonzero(exists)[~is_hole[neighbour[exists]]]]
        ]
        if not any(len(pixels) for pixels, _ in filled):
            return labels
        for pixels, values in filled:
            labels[pixels] = values
            is_hole[pixels] = False
        holes = holes[is_hole[holes]]


def _neighbours(
    pixels: Int64[np.ndarray, " n"], width: int, count: int
) -> Iterator[tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, " n"]]]:
    """Yield the index of the pixel above, left, right and below of each pixel of an image, and where there is one."""
    column = pixels % width
    yield pixels - width, pixels >= width
    yield pixels - 1, column > 0
    yield pixels + 1, column < width - 1
    yield pixels + width, pixels < count - width
