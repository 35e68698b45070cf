"""`walkcut merge` on the command line."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.builders.ground_truth import save_grey, save_labels
from walkcut import cli
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level
from walkcut.hierarchy.hierarchy import Hierarchy
from walkcut.labelstudio.shapes import rle

# Four leaves, two pixels each; 0 and 1 join, 2 and 3 join, then all.
TREE = CutTree(
    np.array([[0, 0, 1, 1], [2, 2, 3, 3]], np.uint16),
    Hierarchy(np.array([[0, 1], [2, 3], [4, 5]]), np.array([0.9, 0.5, 0.1]), np.array([False, False, True])),
    {Level.COARSE: 1, Level.MEDIUM: 2, Level.FINE: 3},
)
MASK = np.array([[1, 1, 0, 0], [0, 0, 0, 0]], bool)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    path = tmp_path / "a.tree.npz"
    path.write_bytes(TREE.to_bytes())
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, ["merge", *map(str, arguments)])


def merged(tree: Path, annotation: Path, *options: object) -> tuple[list[list[int]], dict[str, Any]]:
    """The numbers in the PNG, and the line."""
    out = tree.parent / "deep" / "out.png"
    result = run(tree, "--annotation", annotation, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert [path.name for path in out.parent.iterdir()] == ["out.png"]
    with Image.open(out) as image:
        assert image.mode.startswith("I;16")
        return np.asarray(image).tolist(), json.loads(result.stdout) | {"out": ""}


def region(name: str = "r1", label: str = "Car", mask: np.ndarray = MASK, **more: Any) -> dict[str, Any]:
    sizes = {"original_width": 4, "original_height": 2, "image_rotation": 0}
    value = {"format": "rle", "rle": rle.encode(mask), "brushlabels": [label]}
    names = {"id": name, "from_name": "brush", "to_name": "image", "type": "brushlabels", "value": value}
    return {**sizes, **names, **more}


POINT = region("r2", type="keypointlabels", value={"x": 90, "y": 90, "width": 0.1, "keypointlabels": ["Sky"]})


def export(path: Path, *results: list[dict[str, Any]]) -> Path:
    """An export of a task for each result, numbered from 1, whose annotations are numbered from 11."""
    tasks = [{"id": n, "annotations": [{"id": 10 + n, "result": result}]} for n, result in enumerate(results, 1)]
    path.write_text(json.dumps(tasks))
    return path


def test_clicks_in_a_png_merge_the_whole_image(tree: Path, tmp_path: Path) -> None:
    save_labels(tmp_path / "labels.png", np.array([[0, 7, 0, 0], [0, 0, 0, 300]], np.uint16))
    assert merged(tree, tmp_path / "labels.png") == (
        [[7, 7, 7, 7], [300, 300, 300, 300]],
        {"out": "", "segments": 4, "annotated_segments": 2, "regions": 2},
    )


def test_segments_without_annotation_can_be_left_out(tree: Path, tmp_path: Path) -> None:
    save_labels(tmp_path / "labels.png", np.array([[0, 7, 0, 0], [0, 0, 9, 9]], np.uint8))
    labels, line = merged(tree, tmp_path / "labels.png", "--keep-unannotated")
    assert labels == [[7, 7, 0, 0], [0, 0, 9, 9]]
    assert (line["segments"], line["annotated_segments"], line["regions"]) == (4, 2, 2)
    labels, _ = merged(tree, tmp_path / "labels.png", "--keep-unannotated", "--min-overlap", 0.75)
    assert labels == [[0, 0, 0, 0], [0, 0, 9, 9]]


def test_segments_of_any_granularity_can_be_merged(tree: Path, tmp_path: Path) -> None:
    save_labels(tmp_path / "labels.png", np.array([[0, 7, 0, 0], [0, 0, 0, 9]], np.uint8))
    for granularity, labels in (("2", [[7] * 4, [9] * 4]), ("1", [[7] * 4, [7] * 4])):
        assert merged(tree, tmp_path / "labels.png", "--keep-unannotated", "--granularity", granularity)[0] == labels


def test_numbers_of_a_palette_or_of_two_bits_are_taken_and_not_their_colours(tree: Path, tmp_path: Path) -> None:
    numbers = np.array([[3, 3, 0, 0], [0, 0, 0, 0]], np.uint8)
    save_labels(tmp_path / "labels.png", numbers, palette=[0, 0, 0, 9, 9, 9, 8, 8, 8, 7, 7, 7])
    assert merged(tree, tmp_path / "labels.png")[0] == [[3] * 4] * 2
    save_grey(tmp_path / "labels.png", [b"\xf0", b"\x00"], width=4, bits=2)
    assert merged(tree, tmp_path / "labels.png")[0] == [[3] * 4] * 2


def test_an_exports_regions_are_numbered_and_named(tree: Path, tmp_path: Path) -> None:
    path = export(tmp_path / "export.json", [region(), region("p", "Finer"), POINT])
    assert merged(tree, path) == (
        [[1, 1, 1, 1], [2, 2, 2, 2]],
        {"out": "", "segments": 4, "annotated_segments": 2, "regions": 2,
         "numbers": [{"number": 1, "id": "r1", "labels": ["Car"]}, {"number": 2, "id": "r2", "labels": ["Sky"]}]},
    )  # fmt: skip


def test_task_annotation_and_image_can_be_chosen(tree: Path, tmp_path: Path) -> None:
    path = export(tmp_path / "export.json", [region()], [region("r3"), region("r4", to_name="second")])
    for options in (["--task", 1], ["--annotation-id", 11]):
        assert merged(tree, path, *options)[1]["numbers"][0]["id"] == "r1"
    _, line = merged(tree, path, "--task", 2, "--image", "second")
    assert [number["id"] for number in line["numbers"]] == ["r4"]


def test_the_page_can_be_chosen(tree: Path, tmp_path: Path) -> None:
    second = region("r2", mask=~MASK, item_index=1)
    path = export(tmp_path / "export.json", [region(item_index=0), second, region("r3", to_name="other", item_index=1)])
    for page, identity in ((1, "r1"), (2, "r2")):
        _, line = merged(tree, path, "--page", page, "--image", "image")
        assert [number["id"] for number in line["numbers"]] == [identity]
    for options in ([], ["--page", 3]):
        result = run(tree, "--annotation", path, "--out", tmp_path / "no.png", *options)
        assert (result.exit_code, result.stderr) == (1, "Error: choose the --page of the tree's image among 1, 2\n")
    _, line = merged(tree, export(tmp_path / "one.json", [second]))
    assert [number["id"] for number in line["numbers"]] == ["r2"]


ODD = {
    "two points": region("odd", type="polygonlabels", value={"points": [[1, 1], [2, 2]], "polygonlabels": ["Car"]}),
    "no code": region("odd", value={"format": "rle", "rle": [], "brushlabels": ["Car"]}),
    "nothing": region("odd", mask=np.zeros((2, 4), bool)),
    "a cut code": region("odd", value={"format": "rle", "rle": rle.encode(MASK)[:-3], "brushlabels": ["Car"]}),
    "another size": region("odd", original_width=5),
    "a bitmask": region("odd", type="bitmasklabels", value={"imageDataURL": "data:", "bitmasklabels": ["Car"]}),
    "a shape without labels": region("odd", type="rectangle", value={"x": 1, "y": 1, "width": 9, "height": 9}),
    "no label": region("odd", type="polygonlabels", value={"points": [[1, 1], [9, 1], [9, 9]], "polygonlabels": []}),
    "far out": region("odd", type="keypointlabels", value={"x": 1e9, "y": 1, "width": 1, "keypointlabels": ["Car"]}),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD)
def test_odd_regions_are_named_and_left_out(tree: Path, tmp_path: Path, odd: dict[str, Any]) -> None:
    path = export(tmp_path / "export.json", [region("r0"), odd, POINT])
    result = run(tree, "--annotation", path, "--out", tmp_path / "out.png")
    assert result.exit_code == 0
    assert [number["id"] for number in json.loads(result.stdout)["numbers"]] == ["r0", "r2"]
    assert re.fullmatch("left out: region odd.*: .*\n", result.stderr)
    path = export(tmp_path / "alone.json", [odd, {**odd, "id": "odd 2"}])
    alone = run(tree, "--annotation", path, "--out", tmp_path / "alone.png")
    assert alone.exit_code == 1
    assert re.fullmatch("Error: no region can be read: region odd.*; and 1 more\n", alone.stderr)


def test_a_size_that_is_not_given_is_that_of_the_tree(tree: Path, tmp_path: Path) -> None:
    path = export(tmp_path / "export.json", [region(original_width=None, original_height=None)])
    assert len(merged(tree, path)[1]["numbers"]) == 1


def test_a_region_with_several_labels_is_one_with_all_of_them(tree: Path, tmp_path: Path) -> None:
    two = region("r1")
    two["value"] = {**two["value"], "brushlabels": ["Car", "Red"]}
    second_control = region("r1", "Old", from_name="age")
    path = export(tmp_path / "export.json", [two, second_control, POINT])
    _, line = merged(tree, path)
    assert line["numbers"] == [
        {"number": 1, "id": "r1", "labels": ["Car", "Red", "Old"]},
        {"number": 2, "id": "r2", "labels": ["Sky"]},
    ]


def test_different_regions_with_the_same_id_are_kept(tree: Path, tmp_path: Path) -> None:
    _, line = merged(tree, export(tmp_path / "export.json", [region("r1"), region("r1", mask=~MASK)]))
    assert len(line["numbers"]) == 2


def test_an_annotation_in_a_file_of_its_own_and_json_min(tree: Path, tmp_path: Path) -> None:
    alone = {"id": 7, "result": [region()], "task": {"id": 5, "data": {}}}
    (tmp_path / "7").write_text(json.dumps(alone))  # a target storage's names have no suffix
    assert merged(tree, tmp_path / "7")[1]["numbers"] == [{"number": 1, "id": "r1", "labels": ["Car"]}]
    (tmp_path / "all.json").write_text(json.dumps([alone]))
    assert merged(tree, tmp_path / "all.json")[0] == [[1] * 4] * 2
    value = region()["value"] | {"original_width": 4, "original_height": 2}
    row = {"image": "a.jpg", "id": 5, "brush": [value], "note": "a/b", "annotator": 1, "annotation_id": 7}
    (tmp_path / "min.json").write_bytes(b"\xef\xbb\xbf" + json.dumps([row]).encode())
    assert merged(tree, tmp_path / "min.json")[1]["numbers"] == [{"number": 1, "id": "brush 1", "labels": ["Car"]}]


def test_errors_are_one_line_and_nothing_is_written(tree: Path, tmp_path: Path) -> None:
    ok, out = export(tmp_path / "ok.json", [region()]), tmp_path / "out" / "out.png"
    (tmp_path / "no.npz").write_bytes(b"no tree")
    (tmp_path / "no.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    Image.new("RGB", (4, 2)).save(tmp_path / "rgb.png")
    Image.new("L", (5, 2), 1).save(tmp_path / "wide.png")
    Image.new("L", (4, 2)).save(tmp_path / "empty.png")
    (tmp_path / "deep.json").write_text("[" * 100_000)
    (tmp_path / "nested.json").write_text('{"tasks": [' * 200 + "]}" * 200)
    two_images = export(tmp_path / "2.json", [region(), region(to_name="second")])
    broken = region(value={"rle": [1], "brushlabels": ["Car"]})
    cases: list[tuple[Path, Path, list[object], str]] = [
        (tmp_path / "gone.npz", ok, [], "gone.npz: No such file or directory; pass the path of a readable file"),
        (tree, tmp_path / "gone.png", [], "gone.png: No such file or directory; pass the path"),
        (tree, tmp_path, [], "Is a directory; pass the path of a readable file"),
        (tmp_path / "no.npz", ok, [], "no.npz: not a cut tree.*segment the image again, by `walkcut segment --tree`"),
        (tree, tmp_path / "no.png", [], "no.png cannot be read"),
        (tree, tmp_path / "rgb.png", [], r"rgb.png holds colours \(RGB\): save it with one channel"),
        (tree, tmp_path / "wide.png", [], "annotation of 5×2 pixels does not fit segments of 4×2"),
        (tree, tmp_path / "empty.png", [], "nothing is annotated"),
        (tree, tree, [], "a.tree.npz is neither a PNG nor JSON .*: pass a label PNG, or a JSON export of Label Studio"),
        (tree, tmp_path / "deep.json", [], "neither a PNG nor JSON"),
        (tree, tmp_path / "nested.json", [], "nested more than 100 deep"),
        (tree, export(tmp_path / "none.json"), [], "the export holds no annotation"),
        (tree, export(tmp_path / "bare.json", [region(label="Merge")]), [], "the annotation holds no regions: draw"),
        (tree, export(tmp_path / "many.json", [region()], [region()]), [], "several tasks: choose one of"),
        (tree, ok, ["--task", 4], "no such annotation"),
        (tree, two_images, [], "choose the --image among image, second"),
        (tree, two_images, ["--image", "third"], "choose the --image among image, second"),
        (tree, export(tmp_path / "rle.json", [broken]), [], "region r1: a run-length code is a list"),
        (tree, export(tmp_path / "size.json", [region(original_width=5)]), [], "drawn on an image of 5×2 pixels, not"),
        (tree, export(tmp_path / "part.json", [POINT]), ["--min-overlap", 0.9], "no region covers a fraction"),
    ]  # fmt: skip
    for which, annotation, options, message in cases:
        result = run(which, "--annotation", annotation, "--out", out, *options)
        assert (result.exit_code, out.parent.exists()) == (1, False), message
        assert result.stderr.startswith("Error: "), message
        assert len(result.stderr.splitlines()) == 1, message
        assert re.search(message, result.stderr), result.stderr


def test_a_failed_write_leaves_what_was_there(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out" / "out.png"
    out.parent.mkdir()
    out.write_bytes(b"before")

    def refuse(self: Path, control: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", refuse)
    result = run(tree, "--annotation", export(tmp_path / "a.json", [region()]), "--out", out)
    assert (result.exit_code, result.stderr) == (
        1,
        "Error: No space left on device: make room on the disk, and run the command again\n",
    )
    assert [path.name for path in out.parent.iterdir()] == ["out.png"]
    assert out.read_bytes() == b"before"


def test_the_help_names_the_default_granularity() -> None:
    text = " ".join(run("--help").stdout.split())
    assert "[the tree's leaves, best on BSDS500 by masks and by clicks]" in text
