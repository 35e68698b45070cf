"""Label Studio's editor with each shape of regions: `python -m benchmarks.editor --megapixels 1 12 --regions 10 40`.

Each case is shown and submitted once, in a fresh browser. Needs Label Studio and Chromium, see `make e2e`.
"""

import argparse
import io
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt16
from PIL import Image
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial import cKDTree
from selenium.common.exceptions import TimeoutException, WebDriverException
from urllib3.exceptions import ReadTimeoutError

from tests.e2e.browser import Editor
from tests.e2e.chromium import chromium
from tests.e2e.conftest import CHROMEDRIVER, CHROMIUM, REPOSITORY
from tests.e2e.label_studio import LabelStudio, running_label_studio
from walkcut.labelstudio import shapes
from walkcut.labelstudio.config import parse_image_tags
from walkcut.labelstudio.config_problems import SHAPE_TAGS
from walkcut.labelstudio.predictions import Region, connected_regions, make_prediction
from walkcut.labelstudio.tasks import Task, TaskImage

HEADER = "| megapixels | regions | shape | shown s | submitted s | KB | IoU, mean | IoU, least |"
TIMEOUT_S = 100.0  # for a page that is busy; the driver gives up after 120
Labels = UInt16[np.ndarray, "y x"]


@dataclass(frozen=True)
class Measurement:
    """The time until the editor shows a task's regions and until it has saved them, their JSON's size, and the IoU.

    The intersection over union is that of each mask and of what is read from its value.
    """

    shown_s: float
    submitted_s: float
    size: int
    overlaps: Sequence[float]

    def row(self) -> str:
        """Return the columns of the table."""
        overlaps = f"{np.mean(self.overlaps):.3f} | {np.min(self.overlaps):.3f}"
        return f"{self.shown_s:.1f} | {self.submitted_s:.1f} | {self.size // 1000} | {overlaps}"


def make_labels(megapixels: float, count: int) -> Labels:
    """Return the segments nearest to random points, by distances that wavy noise distorts."""
    height, width = (int((megapixels * 1e6 / 12) ** 0.5 * side) for side in (3, 4))
    rng = np.random.default_rng(0)
    waves = [gaussian_filter(rng.standard_normal((height // 8, width // 8)), scale) for scale in (6, 2, 6, 2)]
    distortion = [
        zoom(wave / wave.std() * height / 120, (height / wave.shape[0], width / wave.shape[1])) for wave in waves
    ]
    y, x = np.mgrid[:height, :width]
    at = np.stack([y + distortion[0] + distortion[1] / 4, x + distortion[2] + distortion[3] / 4], -1)
    nearest = cKDTree(rng.random((count, 2)) * (height, width)).query(at, workers=-1)[1]
    return np.asarray(nearest, np.uint16)


def jpeg(labels: Labels) -> bytes:
    """Return an image of the segments."""
    colours = np.random.default_rng(1).integers(40, 220, (int(labels.max()) + 1, 3)).astype(np.uint8)
    stream = io.BytesIO()
    Image.fromarray(colours[labels]).save(stream, "JPEG", quality=70)
    return stream.getvalue()


def measure(studio: LabelStudio, shape: str, labels: Labels) -> Measurement:
    """Show and submit the segments as regions of a shape."""
    tag = SHAPE_TAGS[shape]
    config = (
        f'<View><Image name="image" value="$image"/><{tag} name="shape" toName="image" closable="true">'
        f'<Label value="Region"/></{tag}></View>'
    )
    project = studio.create_project(f"{shape} {labels.size}", config)
    task = studio.upload(project, "image.jpg", jpeg(labels))
    image = TaskImage(Task(task, {"image": "image.jpg"}), parse_image_tags(config)[0])
    regions = connected_regions([Region(labels == index, "Region") for index in np.unique(labels)], image)
    result = make_prediction([(image, regions)], "benchmark").result
    decoded = (shapes.decode(item["type"], item["value"], labels.shape) for item in result)
    pairs = zip((region.mask for region in regions), decoded, strict=True)
    overlaps = [float((mask & other).sum() / (mask | other).sum()) for mask, other in pairs]
    studio.request("POST", "/api/predictions", json={"task": task, "result": result, "model_version": "benchmark"})
    with chromium(CHROMIUM, CHROMEDRIVER) as browser:
        editor = Editor(browser, studio.url, TIMEOUT_S)
        editor.login()
        begin = time.perf_counter()
        editor.open_task(project, task, n_tabs=1)
        shown = time.perf_counter()
        if len(editor.regions()) != len(regions):
            raise TimeoutError(f"{len(editor.regions())} of {len(regions)} regions are shown")
        begin_submit = time.perf_counter()
        editor.submit()
        return Measurement(shown - begin, time.perf_counter() - begin_submit, len(json.dumps(result)), overlaps)


def rows(
    studio: LabelStudio, megapixels: Sequence[float], counts: Sequence[int], names: Sequence[str]
) -> Iterator[str]:
    """Yield the lines of a table in Markdown."""
    yield HEADER
    yield "|---" * (HEADER.count("|") - 1) + "|"
    for size in megapixels:
        for count in counts:
            labels = make_labels(size, count)
            for shape in names:
                try:
                    columns = measure(studio, shape, labels).row()
                except (TimeoutError, TimeoutException, ReadTimeoutError):
                    columns = f"not within {TIMEOUT_S:g} s | | | | "
                except (WebDriverException, RuntimeError) as error:
                    columns = f"failed: {str(error).splitlines()[0][:60]} | | | | "
                yield f"| {size:g} | {count} | {shape} | {columns} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megapixels", type=float, nargs="+", default=[1, 12, 24])
    parser.add_argument("--regions", type=int, nargs="+", default=[10, 40, 100])
    parser.add_argument("--shapes", nargs="+", choices=SHAPE_TAGS, default=[*SHAPE_TAGS])
    parser.add_argument("--label-studio", type=Path, default=REPOSITORY / ".venv-label-studio" / "bin" / "label-studio")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, running_label_studio(options.label_studio, Path(folder)) as url:
        for row in rows(LabelStudio(url), options.megapixels, options.regions, options.shapes):
            print(row, flush=True)


if __name__ == "__main__":
    main()
