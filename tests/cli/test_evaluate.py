"""`walkcut evaluate`, `walkcut benchmark` and `walkcut presets` on the command line."""

import json
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.builders.ground_truth import save_labels
from tests.builders.scenes import quarter_labels, quarters
from tests.builders.tiny_diffusion import write_folder
from walkcut import cli
from walkcut.evaluation.classical_baselines import CLASSICAL_BASELINES

SCORES = ("covering_ods", "covering_ois", "miou_hungarian", "miou_oracle", "accuracy", "f1", "seconds_per_image")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two images of quarters."""
    for name in ("a", "b"):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(quarters(48, 64)).save(tmp_path / "images" / f"{name}.png")
        save_labels(tmp_path / "labels" / f"{name}.png", quarter_labels(48, 64).astype("uint8"))
    return tmp_path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def test_partitions_are_scored_at_many_granularities(root: Path) -> None:
    result = run("evaluate", "--dataset", "folder", "--root", root, "--json", root / "scores.json")
    assert result.exit_code == 0, result.output
    scores = json.loads((root / "scores.json").read_text())
    assert all(scores[name] >= 0 for name in SCORES)
    assert min(scores[name] for name in SCORES[:-1]) > 0.9
    assert {"4", "auto", "tau=0.4"} < {row["setting"] for row in scores["settings"]}
    assert scores["protocol"] == "native"
    assert (root / "scores.json.merge.jsonl").read_text().count("\n") == 3
    assert "merge" in result.output
    assert "covering_ods 0.9" in result.output or "covering_ods 1.0" in result.output


def test_classes_are_scored_at_level_auto(root: Path) -> None:
    (root / "classes.txt").write_text("one\ntwo\nthree\nfour\n")
    result = run(
        "evaluate", "--dataset", "folder", "--root", root, "--protocol", "diffcut", "--json", root / "scores.json"
    )
    assert result.exit_code == 0, result.output
    scores = json.loads((root / "scores.json").read_text())
    assert [row["setting"] for row in scores["settings"]] == ["auto"]
    assert scores["protocol"] == "diffcut"


def test_half_of_the_images_can_be_left_out(root: Path) -> None:
    for half, name in (("even", "a"), ("odd", "b")):
        out = root / half
        assert run("evaluate", "--dataset", "folder", "--root", root, "--half", half, "--json", out).exit_code == 0
        assert json.loads(out.read_text())["images"] == 1
        assert json.loads((root / f"{half}.merge.jsonl").read_text().splitlines()[1])["name"] == name


def test_a_report_is_written_with_the_command_that_made_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("evaluate", "--dataset", "folder", "--root", root, "--peers", "--report", root / "my report.html")
    monkeypatch.setattr("sys.argv", ["/usr/bin/walkcut", *map(str, arguments)])
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    report = (root / "my report.html").read_text(encoding="utf-8")
    assert f"walkcut evaluate --dataset folder --root {root} --peers" in report
    assert all(name in report for name in ("classical", "Merge(", "merge", *CLASSICAL_BASELINES))


@pytest.mark.parametrize(
    ("option", "module"), [("--peers", "sklearn"), ("--clicks", "cv2"), ("--report=r.html", "matplotlib")]
)
def test_without_the_extra_it_is_named_before_any_work(
    root: Path, monkeypatch: pytest.MonkeyPatch, option: str, module: str
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = run("evaluate", "--dataset", "folder", "--root", root, option)
    assert result.exit_code == 1
    assert result.output == f"Error: {module} is not installed: pip install 'walkcut[evaluation]'\n"


def test_missing_data_is_named(tmp_path: Path) -> None:
    result = run("evaluate", "--dataset", "voc", "--root", tmp_path)
    assert result.exit_code == 1
    assert str(tmp_path) in result.output
    assert "VOCtrainval" in result.output


def test_the_benchmark_prints_stages_and_the_ratio(tmp_path: Path) -> None:
    image = tmp_path / "quarters.png"
    Image.fromarray(quarters(48, 64)).save(image)
    folder = write_folder(tmp_path / "tiny", "sd14")
    result = run("benchmark", "--model", folder, "--image", image, "--rounds", 1)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[1:-2]] == [
        "decode", "features", "VAE", "U-Net", "aggregate", "walk", "affinity", "cut", "assign",
        "encode", "other", "total",
    ]  # fmt: skip
    assert "without the model's passes: " in result.stdout
    assert result.stdout.rstrip().endswith("the same labels")


def test_the_benchmark_of_the_default_model_says_that_there_is_no_reference() -> None:
    result = run("benchmark", "--rounds", 1)
    assert result.exit_code == 0, result.output
    assert [line.split()[0] for line in result.stdout.splitlines()[1:-1]] == [
        "decode", "features", "cut", "assign", "encode", "other", "total",
    ]  # fmt: skip
    assert "not compared with the papers' algorithm: Merge() has no published form" in result.stdout


def test_presets_are_listed() -> None:
    lines = run("presets").output.splitlines()
    assert lines[0] == "merge                            Merge()"
    assert any(line.startswith("dwc-table2-k3 ") and "ScaledMinCut" in line for line in lines)
