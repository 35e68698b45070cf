"""Paint `sample.jpg`, a small landscape, and write it as a task into `sample_task.json`.

Run `python labelstudio_config/make_sample.py` to write both files. The image is the same every time.
"""

import base64
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

FOLDER = Path(__file__).resolve().parent
WIDTH, HEIGHT = 640, 480
OVERSAMPLING = 3  # shapes are drawn larger and reduced, for soft edges

Plane = NDArray[np.float64]  # (HEIGHT, WIDTH)
RgbImage = NDArray[np.float64]  # (HEIGHT, WIDTH, 3), RGB in 0..255
Colour = tuple[int, int, int]
Point = tuple[float, float]
Draw = Callable[[ImageDraw.ImageDraw], None]

ROWS, COLUMNS = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float64)


def mask(draw: Draw) -> Plane:
    """Return the coverage of each pixel by a shape, from 0 to 1; `draw` paints the shape with fill 255."""
    canvas = Image.new("L", (WIDTH * OVERSAMPLING, HEIGHT * OVERSAMPLING))
    draw(ImageDraw.Draw(canvas))
    return np.asarray(canvas.reduce(OVERSAMPLING), dtype=np.float64) / 255


def polygon(points: Sequence[Point]) -> Plane:
    """Return the coverage by a polygon with corners in pixels."""
    corners = [(OVERSAMPLING * x, OVERSAMPLING * y) for x, y in points]
    return mask(lambda draw: draw.polygon(corners, fill=255))


def box(left: float, top: float, right: float, bottom: float) -> Plane:
    """Return the coverage by an axis-aligned rectangle."""
    return polygon([(left, top), (right, top), (right, bottom), (left, bottom)])


def blob(x: float, y: float, radius_x: float, radius_y: float | None = None) -> Plane:
    """Return the coverage by an ellipse, or by a circle if one radius is given."""
    radius_y = radius_x if radius_y is None else radius_y
    corners = [OVERSAMPLING * c for c in (x - radius_x, y - radius_y, x + radius_x, y + radius_y)]
    return mask(lambda draw: draw.ellipse(corners, fill=255))


def ridge(level: float, *waves: tuple[float, float, float]) -> Plane:
    """Return the coverage by everything below hills: a level plus waves of (height, length, shift) in pixels."""
    x = np.linspace(0, WIDTH, 161)
    y = level - sum(height * np.sin(2 * np.pi * (x - shift) / length) for height, length, shift in waves)
    line = [(float(a), float(b)) for a, b in zip(x, y, strict=True)]
    return polygon([*line, (WIDTH, HEIGHT), (0, HEIGHT)])


def noise(seed: int, cell: tuple[float, float]) -> Plane:
    """Return smooth noise of mean 0 and standard deviation 1 with grains of about `cell` pixels (width, height)."""
    shape = (int(HEIGHT / cell[1]) + 1, int(WIDTH / cell[0]) + 1)
    grid = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    grain = np.asarray(Image.fromarray(grid).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float64)
    standard: Plane = (grain - grain.mean()) / grain.std()
    return standard


def shade(top: Colour, bottom: Colour, rows: tuple[float, float], grain: Plane | float = 0.0) -> RgbImage:
    """Return a vertical gradient between two rows, with the brightness varied by `grain` (a fraction)."""
    start, end = rows
    blend = np.clip((ROWS - start) / (end - start), 0, 1)[..., None]
    brightness = np.broadcast_to(1 + np.asarray(grain), (HEIGHT, WIDTH))[..., None]
    colour: RgbImage = ((1 - blend) * np.asarray(top) + blend * np.asarray(bottom)) * brightness
    return colour


def over(below: RgbImage, cover: Plane, paint: RgbImage) -> RgbImage:
    """Return `paint` over `below`, blended by the coverage `cover`."""
    return below * (1 - cover[..., None]) + paint * cover[..., None]


def paint_sky() -> RgbImage:
    """Return a clear sky with a sun, its glow and two clouds."""
    sky = shade((82, 142, 208), (238, 214, 186), (0, 250))
    glow = np.exp(-np.hypot(COLUMNS - 505, ROWS - 88) / 70)
    sky = over(sky, 0.75 * glow, shade((255, 236, 178), (255, 236, 178), (0, 1)))
    sky = over(sky, blob(505, 88, 31), shade((255, 246, 206), (255, 226, 140), (57, 119)))
    for x, y, size in ((135, 82, 1.0), (330, 52, 0.75)):
        puffs = ((-48, 6, 34, 15), (-14, -6, 36, 24), (24, 0, 38, 20), (58, 8, 28, 12))
        cloud = np.max([blob(x + size * a, y + size * b, size * c, size * d) for a, b, c, d in puffs], axis=0)
        sky = over(sky, 0.92 * cloud, shade((252, 252, 250), (204, 212, 226), (y - 26 * size, y + 22 * size)))
    return sky


def paint_land(image: RgbImage) -> RgbImage:
    """Paint mountains, hills, a lake and a meadow, from far to near."""
    leaves = 0.05 * noise(1, (3, 3)) + 0.05 * noise(2, (14, 9))
    grass = 0.06 * noise(3, (2, 5)) + 0.04 * noise(4, (40, 16))
    rock = 0.05 * noise(5, (9, 22)) + 0.02 * noise(6, (3, 3))
    ripples = 0.045 * noise(7, (46, 3)) + 0.02 * noise(8, (16, 2))
    peaks = ridge(212, (30, 330, 20), (16, 127, 60), (5, 41, 0))
    image = over(image, peaks, shade((112, 122, 156), (158, 166, 184), (160, 262), rock))
    wood = ridge(262, (15, 410, 210), (6, 150, 30), (2.5, 17, 3))
    image = over(image, wood, shade((44, 92, 70), (66, 116, 80), (236, 310), 1.5 * leaves))
    lake = ridge(304, (1.5, 300, 40))
    image = over(image, lake, shade((176, 194, 206), (52, 104, 148), (302, 400), ripples))
    meadow = ridge(352, (34, 900, 600), (7, 260, 90))
    image = over(image, meadow, shade((142, 176, 74), (84, 132, 46), (320, 480), 1.6 * grass))
    path = polygon([(181, 402), (203, 402), (236, 430), (318, 480), (214, 480), (190, 436)])
    return over(image, path, shade((206, 180, 138), (184, 152, 108), (402, 480), 0.9 * grass))


def paint_house(image: RgbImage) -> RgbImage:
    """Paint a white house with a red roof, a chimney, a door and three windows."""
    plaster = 0.015 * noise(9, (3, 3))
    tiles = 0.05 * np.sin(2 * np.pi * ROWS / 7) + 0.04 * noise(10, (5, 3))
    side_light = 0.10 * (150 - COLUMNS) / 90
    image = over(image, box(206, 254, 226, 318), shade((126, 66, 54), (104, 52, 44), (254, 318)))
    walls = shade((240, 232, 214), (220, 208, 188), (330, 404), plaster + side_light)
    image = over(image, box(96, 328, 254, 404), walls)
    roof = polygon([(82, 332), (124, 276), (230, 276), (268, 332)])
    image = over(image, roof, shade((196, 82, 58), (158, 54, 42), (276, 332), tiles + side_light))
    image = over(image, box(180, 352, 206, 404), shade((112, 74, 46), (86, 54, 34), (352, 404), plaster))
    for left in (112, 146, 220):
        image = over(image, box(left - 2, 346, left + 24, 378), shade((250, 250, 246), (236, 236, 230), (346, 378)))
        image = over(image, box(left, 348, left + 22, 376), shade((84, 112, 146), (150, 176, 196), (348, 376)))
    return image


def paint_tree(image: RgbImage, x: float, foot: float, size: float, seed: int) -> RgbImage:
    """Paint a round tree lit from the upper right; `foot` is the row where its trunk ends."""
    bark = 0.10 * noise(seed, (3, 12))
    trunk = polygon(
        [(x - 6 * size, foot), (x + 7 * size, foot), (x + 4 * size, foot - 70 * size), (x - 3 * size, foot - 70 * size)]
    )
    image = over(
        image, blob(x - 10 * size, foot, 46 * size, 8 * size) * 0.45, shade((38, 62, 30), (38, 62, 30), (0, 1))
    )
    image = over(image, trunk, shade((106, 78, 54), (78, 54, 36), (foot - 70 * size, foot), bark))
    puffs = ((0, -112, 40), (-30, -84, 34), (30, -86, 35), (0, -78, 40), (-12, -128, 26))
    crown = np.max([blob(x + size * a, foot + size * b, size * c) for a, b, c in puffs], axis=0)
    light = np.clip(((COLUMNS - x) - (ROWS - foot + 92 * size)) / (150 * size), -0.35, 0.35)
    foliage = 0.10 * noise(seed + 1, (4, 4)) + 0.06 * noise(seed + 2, (11, 11))
    return over(
        image, crown, shade((72, 128, 50), (50, 98, 42), (foot - 155 * size, foot - 40 * size), light + foliage)
    )


def paint() -> Image.Image:
    """Return the sample image, RGB."""
    image = paint_house(paint_land(paint_sky()))
    for x, foot, size, seed in ((46, 418, 0.95, 20), (300, 404, 0.8, 30), (548, 448, 1.45, 40)):
        image = paint_tree(image, x, foot, size, seed)
    image += 1.6 * np.random.default_rng(99).normal(size=image.shape)  # camera noise
    return Image.fromarray(np.clip(np.rint(image), 0, 255).astype(np.uint8))


def write(folder: Path) -> None:
    """Write `sample.jpg`, and `sample_task.json` with the same bytes as a data: URL, into a folder."""
    target = folder / "sample.jpg"
    paint().save(target, quality=90, subsampling=0, optimize=True)
    url = "data:image/jpeg;base64," + base64.b64encode(target.read_bytes()).decode("ascii")
    task = [{"data": {"image": url}}]
    (folder / "sample_task.json").write_text(json.dumps(task) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(FOLDER)
