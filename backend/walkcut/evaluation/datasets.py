"""Data sets in the folders of their publishers, and any folder of images and label images.

`data/NAME.csv` lists the labels in a data set's label images, one in each row: the number, its name, and the class
under which it is scored (none: ignored). Classes are numbered in the order of their first rows, a background last:
that is DiffCut's order, which decides ties of the matching. Sources:

* coco-stuff-27: the 182 labels of COCO-Stuff (Caesar et al. 2018, labels.md; its PNGs hold the number less 1) under
  the 27 superclasses of its hierarchy, 12 of things and 15 of stuff, in the order of IIC's (Ji et al. 2019) curated
  set. The papers name 2174 images; the list published by DiffSeg's and DiffCut's authors has 2175.
* coco-object: the 80 things of the same PNGs; stuff and unlabelled pixels are background. DiffCut uses the same list.
* cityscapes-27: labels 7 to 33 of Cityscapes' labelIds (Cordts et al. 2016, labels.py); 0 to 6 are void.
* ade20k-150: the SceneParsing benchmark (Zhou et al. 2017). 0, "other", is ignored, which leaves the 150 classes of
  DiffCut's paper. Its program reads these files without that shift: 0 is scored as a class, and 150 (flag) ignored.
* voc: PASCAL VOC 2012 (Everingham et al. 2015); 255 is the void around objects.
* context: the 59 frequent classes of PASCAL Context (Mottaghi et al. 2014); all else, 0, is background.
* bsds500: Arbeláez et al. 2011; each image was segmented by several people; segments have no classes.
"""

import csv
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from glob import escape
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np
from jaxtyping import Int64, UInt8

from walkcut.errors import ImageDecodeError, SettingsError
from walkcut.evaluation.ground_truth import IGNORE, LabelImage, Truth, human_segmentations
from walkcut.images.decode import IMAGE_SUFFIXES, DecodeLimits, decode

_BACKGROUND: Final = "background"


@dataclass(frozen=True)
class Example:
    """An image and its ground truth: one class map, or the partitions by several people."""

    name: str
    image: Path
    truths: tuple[Truth, ...]

    def read(self) -> tuple[UInt8[np.ndarray, "y x 3"], tuple[Int64[np.ndarray, "y x"], ...]]:
        """Return the image and all truths. Raises `ImageDecodeError` for an unreadable file, or a wrong size."""
        image = decode(self.image.read_bytes(), DecodeLimits())
        truths = tuple(truth.read() for truth in self.truths)
        for truth, labels in zip(self.truths, truths, strict=True):
            if labels.shape != image.shape[:2]:
                raise ImageDecodeError(
                    f"{truth.path} has {labels.shape[1]} x {labels.shape[0]} pixels, but its image {self.image} has "
                    f"{image.shape[1]} x {image.shape[0]}: put the truth of this image there, in its size"
                )
        return image, truths


@dataclass(frozen=True)
class Dataset:
    """Images with ground truth, and the meaning of its labels.

    `classes` are the names of labels 0, 1, …, and `ignore` is the label of pixels that are not scored. Without classes
    truths are partitions, whose labels only separate parts, and an image may have several.
    """

    name: str
    split: str
    examples: tuple[Example, ...]
    classes: tuple[str, ...] = ()
    ignore: int = IGNORE

    @property
    def partitions(self) -> bool:
        """Whether truths are partitions without classes."""
        return not self.classes

    @property
    def background(self) -> int | None:
        """The label of the background class, if the data set has one."""
        return self.classes.index(_BACKGROUND) if _BACKGROUND in self.classes else None


@dataclass(frozen=True)
class _Layout:
    """Paths of a data set's files below its root, one of `root_candidates` below the user's folder, and their source.

    `{name}` stands for an image's name and `{split}` for the data set's own name of the split. The image names are
    those in the file `names`, or else those of all images.
    """

    source: str
    root_candidates: tuple[str, ...]
    image: str
    truth: str
    names: str = ""
    wildcard: str = "*"
    splits: Mapping[str, str] = field(default_factory=lambda: {"val": "val", "train": "train"})


_COCO: Final = _Layout(
    source="http://images.cocodataset.org/zips/val2017.zip (images), http://calvin.inf.ed.ac.uk/wp-content/uploads/"
    "data/cocostuffdataset/stuffthingmaps_trainval2017.zip (annotations) and https://github.com/google/diffseg "
    "(data/coco/Coco164kFull_Stuff_Coarse_7.txt)",
    root_candidates=("", "coco", "cocostuff", "dataset"),
    image="images/{split}/{name}.jpg",
    truth="annotations/{split}/{name}.png",
    names="Coco164kFull_Stuff_Coarse_7.txt",
    splits={"val": "val2017"},
)
_LAYOUTS: Final[Mapping[str, _Layout]] = {
    "coco-stuff-27": _COCO,
    "coco-object": _COCO,
    "cityscapes-27": _Layout(
        source="https://www.cityscapes-dataset.com/downloads/ (leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip)",
        root_candidates=("", "cityscapes"),
        image="leftImg8bit/{split}/{name}_leftImg8bit.png",
        truth="gtFine/{split}/{name}_gtFine_labelIds.png",
        wildcard="*/*",
    ),
    "ade20k-150": _Layout(
        source="http://data.csail.mit.edu/places/ADEchallenge/ADEChallengeData2016.zip",
        root_candidates=("", "ADEChallengeData2016"),
        image="images/{split}/{name}.jpg",
        truth="annotations/{split}/{name}.png",
        splits={"val": "validation", "train": "training"},
    ),
    "voc": _Layout(
        source="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (VOCtrainval_11-May-2012.tar)",
        root_candidates=("", "VOC2012", "VOCdevkit/VOC2012"),
        image="JPEGImages/{name}.jpg",
        truth="SegmentationClass/{name}.png",
        names="ImageSets/Segmentation/{split}.txt",
    ),
    "context": _Layout(
        source="http://host.robots.ox.ac.uk/pascal/VOC/voc2010/ (VOCtrainval_03-May-2010.tar: images) and "
        "https://cs.stanford.edu/~roozbeh/pascal-context/ (labels, made into lists and PNGs of 60 classes by "
        "MMSegmentation's converter pascal_context.py)",
        root_candidates=("", "VOC2010", "VOCdevkit/VOC2010"),
        image="JPEGImages/{name}.jpg",
        truth="SegmentationClassContext/{name}.png",
        names="ImageSets/SegmentationContext/{split}.txt",
    ),
    "bsds500": _Layout(
        source="https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/resources.html (BSR_bsds500.tgz)",
        root_candidates=("", "BSR/BSDS500/data", "BSDS500/data", "data"),
        image="images/{split}/{name}.jpg",
        truth="groundTruth/{split}/{name}.mat",
        splits={"val": "val", "train": "train", "test": "test"},
    ),
}
_FOLDER: Final = "folder"
DATASETS: Final = (*_LAYOUTS, _FOLDER)


def read_dataset(name: str, root: Path, split: str = "val") -> Dataset:
    """Find the images and truths of a data set (one of `DATASETS`) in the folder `root`; pixels are read later.

    The data set "folder" is the user's own:

    * images: `images/SPLIT/STEM.jpg` (or PNG, …), or `images/STEM.jpg` without splits
    * truths: `labels/SPLIT/STEM.png` or `labels/STEM.png` likewise
    * `classes.txt`, if labels are classes: label n is the class in line n + 1, and 255 (65535 if there are more
      classes) is ignored. A class named "background" is the background.
    * Without that file labels are partitions, one or several for each image: `STEM.1.png`, `STEM.2.png`, …

    Raises:
        SettingsError: for an unknown data set or split, or missing files; the message says which to put where.
        ImageDecodeError: for a damaged `.mat` file.
    """
    if name == _FOLDER:
        return _read_folder(root, split)
    if name not in _LAYOUTS:
        raise SettingsError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    layout = _LAYOUTS[name]
    if split not in layout.splits:
        raise SettingsError(f"{name} has no truth for a split {split!r}: choose one of {', '.join(layout.splits)}")
    paths = _find(name, layout, root, layout.splits[split])
    if layout.truth.endswith(".mat"):
        examples = tuple(Example(stem, image, human_segmentations(truth)) for stem, image, truth in paths)
        return Dataset(name, split, examples)
    rows = read_table(name)
    classes = tuple(dict.fromkeys(row["class"] for row in rows if row["class"]))
    class_of = {int(row["label"]): classes.index(row["class"]) if row["class"] else IGNORE for row in rows}
    examples = tuple(Example(stem, image, (LabelImage(truth, class_of),)) for stem, image, truth in paths)
    return Dataset(name, split, examples, classes)


def read_table(name: str) -> list[dict[str, str]]:
    """Return the rows of `data/NAME.csv`."""
    text = (files("walkcut.evaluation") / "data" / f"{name}.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _find(name: str, layout: _Layout, root: Path, split: str) -> list[tuple[str, Path, Path]]:
    """Return name, image and truth of each example."""
    root = _find_root(name, layout, root, split)
    paths = [
        (
            PurePosixPath(stem).name,
            root / layout.image.format(name=stem, split=split),
            root / layout.truth.format(name=stem, split=split),
        )
        for stem in _names(layout, root, split)
    ]
    missing = [str(path) for _, image, truth in paths for path in (image, truth) if not path.is_file()]
    remedy = f"; get the images of {name} and their truths from {layout.source}"
    if not paths:
        raise SettingsError(f"{root} lacks all images{remedy}")
    _refuse(missing, f"{root} lacks {len(missing)} files:", remedy)
    return paths


def _find_root(name: str, layout: _Layout, root: Path, split: str) -> Path:
    """Return the first of the root candidates that holds the list of image names, or the images."""
    marker = (layout.names or layout.image.partition("{name}")[0]).format(split=split)
    for candidate in layout.root_candidates:
        if (root / candidate / marker).exists():
            return root / candidate
    required = [path.format(split=split, name="NAME") for path in (layout.names, layout.image, layout.truth) if path]
    raise SettingsError(f"{root} does not hold {name}: put {', '.join(required)} there, from {layout.source}")


def _names(layout: _Layout, root: Path, split: str) -> list[str]:
    """Return the names of all images: from the list, in its order, or else sorted."""
    if layout.names:
        return (root / layout.names.format(split=split)).read_text(encoding="utf-8").split()
    before, after = layout.image.format(name="*", split=split).split("*")
    images = root.glob(before + layout.wildcard + after)
    return sorted(path.relative_to(root).as_posix()[len(before) : -len(after)] for path in images)


def _read_folder(root: Path, split: str) -> Dataset:
    """Read the user's own folder, see `read_dataset`."""
    part = split if (root / "images" / split).is_dir() else ""
    image_folder, labels, class_list = root / "images" / part, root / "labels" / part, root / "classes.txt"
    classes = tuple(class_list.read_text(encoding="utf-8").splitlines()) if class_list.exists() else ()
    images = sorted(path for path in image_folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    truths = {image: _label_paths(labels, image.stem) for image in images}
    _check_folder(image_folder, labels, truths, has_classes=bool(classes))
    class_of = {**{label: label for label in range(len(classes))}, 255 if len(classes) <= 255 else 65535: IGNORE}
    examples = tuple(
        Example(image.stem, image, tuple(LabelImage(path, class_of if classes else None) for path in paths))
        for image, paths in truths.items()
    )
    return Dataset(_FOLDER, split, examples, classes)


def _label_paths(labels: Path, stem: str) -> tuple[Path, ...]:
    """Return the label images of one image: one, or those of several people."""
    single = labels / f"{stem}.png"
    return (single,) if single.is_file() else tuple(sorted(labels.glob(f"{escape(stem)}.*.png")))


def _check_folder(
    image_folder: Path, labels: Path, truths: Mapping[Path, Sequence[Path]], *, has_classes: bool
) -> None:
    """Raise `SettingsError` unless each image has a stem that no other has, and its truths."""
    if not truths:
        raise SettingsError(f"{image_folder} holds no images: put STEM.jpg (or PNG, …) there, and {labels}/STEM.png")
    duplicates = [stem for stem, count in Counter(image.stem for image in truths).items() if count > 1]
    unlabelled = [image.name for image, paths in truths.items() if not paths]
    multiple = [image.name for image, paths in truths.items() if len(paths) > 1 and has_classes]
    _refuse(duplicates, f"{image_folder} holds several images of one stem:", "; rename all but one of each")
    _refuse(
        unlabelled,
        f"{labels} holds no truth for {len(unlabelled)} images:",
        "; put STEM.png there for each, or STEM.1.png, STEM.2.png, … by several people",
    )
    _refuse(
        multiple,
        f"{labels} holds several truths for",
        ", but classes.txt makes their labels classes: keep one STEM.png for each image, or remove classes.txt",
    )


def _refuse(names: Sequence[str], problem: str, remedy: str) -> None:
    """Raise `SettingsError` with the first of the names, if there are any."""
    if names:
        raise SettingsError(f"{problem} {', '.join(names[:3])}{', …' if len(names) > 3 else ''}{remedy}")
