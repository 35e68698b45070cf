"""Made images whose parts are named, in series that differ in what tells the names apart."""

from collections.abc import Callable, Mapping

import numpy as np

SIZE = 96, 128
Scene = tuple[np.ndarray, list[tuple[str, np.ndarray]]]  # an image, and the names and masks of its parts

_Y, _X = np.mgrid[: SIZE[0], : SIZE[1]]
_COLOURS = {"Apple": (200, 60, 50), "Leaf": (70, 150, 60), "Ball": (60, 100, 200)}
_GROUNDS = ((150, 140, 120), (120, 120, 125), (175, 170, 160))


def _ground(chance: np.random.Generator) -> np.ndarray:
    return np.array(_GROUNDS[chance.integers(3)]) + chance.normal(0, 8, (*SIZE, 1)) + np.zeros(3)


def _blob(chance: np.random.Generator, slot: int, radius: float, *, box: bool = False) -> np.ndarray:
    """Return a disc or a box in one of six slots of the image."""
    y, x = (24, 72)[slot // 3] + chance.uniform(-4, 4), (22, 64, 106)[slot % 3] + chance.uniform(-4, 4)
    if box:
        return np.asarray((abs(_Y - y) < radius * 0.9) & (abs(_X - x) < radius * 0.9))
    return np.asarray(np.hypot(_Y - y, _X - x) < radius)


def _paint(chance: np.random.Generator, image: np.ndarray, mask: np.ndarray, colour: object, spread: float) -> None:
    image[mask] = np.array(colour) + chance.normal(0, spread, 3) + chance.normal(0, 6, (mask.sum(), 1))


def colour(chance: np.random.Generator) -> Scene:
    """Discs whose colour is their name's."""
    image, parts = _ground(chance), []
    for slot in chance.permutation(6)[: chance.integers(3, 6)]:
        name = str(chance.choice([*_COLOURS]))
        mask = _blob(chance, slot, chance.uniform(12, 19))
        _paint(chance, image, mask, _COLOURS[name], 12)
        parts.append((name, mask))
    return image, parts


def light(chance: np.random.Generator) -> Scene:
    """The same discs in brighter and darker light with a cast."""
    image, parts = colour(chance)
    return image * chance.uniform(0.4, 1.2) * chance.uniform(0.8, 1.2, 3), parts


def strangers(chance: np.random.Generator) -> Scene:
    """The same discs, and boxes of the same colours that nobody names."""
    image, parts = colour(chance)
    taken = np.any([mask for _, mask in parts], axis=0)
    for slot in range(6):
        mask = _blob(chance, slot, chance.uniform(11, 17), box=True)
        if not (mask & taken).any():
            _paint(chance, image, mask, _COLOURS[str(chance.choice([*_COLOURS]))], 12)
    return image, parts


def texture(chance: np.random.Generator) -> Scene:
    """Discs of one mean colour with stripes, checks or speckles."""
    image, parts = _ground(chance), []
    patterns = {
        "Stripes": (_X // 3 + 0 * _Y) % 2,
        "Checks": (_X // 6 + _Y // 6) % 2,
        "Speckles": chance.random(SIZE) > 0.5,
    }
    for slot in chance.permutation(6)[: chance.integers(3, 6)]:
        name = str(chance.choice([*patterns]))
        mask = _blob(chance, slot, chance.uniform(15, 20))
        image[mask] = np.where(patterns[name], 190, 50)[mask, None] + chance.normal(0, 8, (mask.sum(), 1))
        parts.append((name, mask))
    return image, parts


def position(chance: np.random.Generator) -> Scene:
    """Sky above and water below in one colour, and land between them."""
    top, bottom = chance.uniform(25, 45), chance.uniform(55, 75)
    blue = np.array((110, 150, 200)) + chance.normal(0, 12, 3)
    image = blue + chance.normal(0, 6, (*SIZE, 1))
    land = (top + 4 * np.sin(_X / 9) <= _Y) & (bottom > _Y)
    _paint(chance, image, land, (90, 110, 60), 10)
    return image, [("Sky", ~land & (bottom > _Y)), ("Land", land), ("Water", ~land & (bottom <= _Y))]


def extent(chance: np.random.Generator) -> Scene:
    """Small and large discs of one colour."""
    image, parts = _ground(chance), []
    for slot in chance.permutation(6)[: chance.integers(3, 6)]:
        name = str(chance.choice(["Berry", "Tomato"]))
        mask = _blob(chance, slot, chance.uniform(7, 9) if name == "Berry" else chance.uniform(17, 20))
        _paint(chance, image, mask, (200, 60, 50), 10)
        parts.append((name, mask))
    return image, parts


def misleading(chance: np.random.Generator) -> Scene:
    """Discs and boxes in colours by chance: what is learned of looks says nothing about names."""
    image, parts = _ground(chance), []
    for slot in chance.permutation(6)[: chance.integers(3, 6)]:
        name = str(chance.choice(["Disc", "Box"]))
        mask = _blob(chance, slot, chance.uniform(12, 18), box=name == "Box")
        _paint(chance, image, mask, _COLOURS[str(chance.choice([*_COLOURS]))], 12)
        parts.append((name, mask))
    return image, parts


SERIES: Mapping[str, Callable[[np.random.Generator], Scene]] = {
    make.__name__: make for make in (colour, light, strangers, texture, position, extent, misleading)
}


def made_scene(name: str, number: int) -> Scene:
    """Return scene `number` of a series, the same at each run."""
    image, parts = SERIES[name](np.random.default_rng([[*SERIES].index(name), number]))
    return image.clip(0, 255).astype(np.uint8), parts
