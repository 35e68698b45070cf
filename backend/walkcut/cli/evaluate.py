"""`walkcut evaluate`."""

import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import click
from tqdm import tqdm

from walkcut.cli.options import model_options
from walkcut.errors import require_extra
from walkcut.evaluation.classical_baselines import CLASSICAL_BASELINES
from walkcut.evaluation.datasets import DATASETS, Dataset, read_dataset
from walkcut.evaluation.paper_results import PaperResult, paper_results
from walkcut.evaluation.protocols import PROTOCOLS, Protocol
from walkcut.evaluation.report import SystemOutcome, report_page
from walkcut.evaluation.runner import EvaluationRun
from walkcut.evaluation.simulated_annotator import simulated_annotations, summarise_annotations
from walkcut.evaluation.summary import at_segments, summarise
from walkcut.evaluation.systems import System, TreeSystem, baseline_systems
from walkcut.hierarchy.granularity import Granularity, Level, Segments, Threshold
from walkcut.inference.factory import make_segmenter, with_overrides
from walkcut.segmentation.presets import describe
from walkcut.segmentation.segmenter import Segmenter
from walkcut.settings import read_settings

_COUNTS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 60)
_TAUS = tuple(round(0.04 * step, 2) for step in range(1, 25))
LADDER: tuple[Granularity, ...] = (*map(Threshold, _TAUS), *map(Segments, _COUNTS), *Level)
_BOUNDARY_SETTINGS = frozenset(str(Threshold(tau)) for tau in _TAUS[1::3])

T = TypeVar("T")


@click.command()
@click.option("--dataset", required=True, type=click.Choice(tuple(DATASETS)), help="The data set.")
@click.option("--root", required=True, type=click.Path(file_okay=False, path_type=Path), help="The data set's folder.")
@click.option("--split", default="val", show_default=True, help="The part of the data set.")
@click.option(
    "--half",
    type=click.Choice(("even", "odd")),
    help="Score every other image only, from the first (even) or the second (odd) on.",
)
@click.option(
    "--protocol",
    type=click.Choice(tuple(PROTOCOLS)),
    help="How images are cropped, scaled and scored: native keeps their size, the others follow a paper.  "
    "[default: native for partitions, else dwc]",
)
@model_options
@click.option("--peers/--no-peers", help="Also score classical segmenters and the papers' baselines.")
@click.option(
    "--feedback", is_flag=True, help="Also score the oracle merge by simulated masks and clicks of an annotator."
)
@click.option("--json", "json_path", type=click.Path(dir_okay=False, path_type=Path), help="File for the scores.")
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="HTML file with plots and images.")
def evaluate(
    dataset: str,
    root: Path,
    split: str,
    half: str | None,
    protocol: str | None,
    model: str | None,
    method: str | None,
    random_weights: bool,  # noqa: FBT001 - the command line's switches
    peers: bool,  # noqa: FBT001
    feedback: bool,  # noqa: FBT001
    json_path: Path | None,
    report: Path | None,
) -> None:
    """Score segmentations against human ground truth.

    Data sets of partitions, such as BSDS500, are scored at many granularities; those with classes at
    the granularity auto. With
    --json FILE each image's scores are appended to FILE.NAME.jsonl, from which an interrupted run resumes. --peers and
    --report need the extra: pip install 'walkcut[evaluation]'.
    """
    _check_extra(*(["sklearn"] if peers else []), *(["jinja2", "matplotlib"] if report else []))
    examples = _half(read_dataset(dataset, root, split), half)
    rules = PROTOCOLS[protocol or ("native" if examples.partitions else "dwc")]
    settings = with_overrides(read_settings(), model=model, method=method)
    segmenter = make_segmenter(settings, random_weights=random_weights)
    feedback_summary = _score_feedback(examples, segmenter) if feedback else {}
    outcomes = _score_systems(_systems(segmenter, examples, peers=peers), examples, rules, json_path)
    papers = paper_results(segmenter.preset.name, settings.model, dataset)
    for row in papers:
        click.echo(
            f"{row.source}: mean IoU {row.miou}, accuracy {row.accuracy}, F1 {row.f1} ({row.averaging}, in percent)"
        )
    if json_path is not None:
        json_path.write_text(json.dumps(_document(outcomes, papers) | feedback_summary, indent=2) + "\n")
    if report is not None:
        facts = {
            "Program": f"walkcut {version('walkcut')}",
            "Model": settings.model,
            "Method": describe(segmenter.preset),
            "Command": shlex.join(["walkcut", *sys.argv[1:]]),
        }
        report.write_text(report_page(outcomes, papers, facts), encoding="utf-8")


def _check_extra(*modules: str) -> None:
    """Raise `SettingsError` before any work if a module of the extra is missing."""
    with require_extra("evaluation"):
        for module in modules:
            import_module(module)


def _systems(segmenter: Segmenter, dataset: Dataset, *, peers: bool) -> list[System]:
    """Return the segmenter, and with `peers` all baselines."""
    baselines = [*CLASSICAL_BASELINES.values(), *baseline_systems(segmenter)] if peers else []
    return [TreeSystem(segmenter, LADDER if dataset.partitions else (Level.AUTO,)), *baselines]


def _score_systems(
    systems: Sequence[System], dataset: Dataset, protocol: Protocol, json_path: Path | None
) -> list[SystemOutcome]:
    """Score all systems and print a line for each, and one that compares it with the first."""
    outcomes: list[SystemOutcome] = []
    for system in systems:
        run = EvaluationRun(
            system, dataset, protocol, _boundary_settings(system) if dataset.partitions else frozenset()
        )
        record = None if json_path is None else json_path.with_name(f"{json_path.name}.{system.name}.jsonl")
        results = tuple(_progress(run.results(record), system.name, dataset))
        outcomes.append(SystemOutcome(run, results, summarise(run, results)))
        click.echo(_line(outcomes[-1].summary))
        if len(outcomes) > 1:
            click.echo(_comparison(outcomes[0].summary, outcomes[-1].summary))
    return outcomes


def _document(outcomes: Sequence[SystemOutcome], papers: Sequence[PaperResult]) -> dict[str, Any]:
    """Return the first outcome's summary with the papers' results, and the baselines' summaries if there are any."""
    first, *baselines = (outcome.summary for outcome in outcomes)
    rows = {"paper_results": [asdict(row) for row in papers]}
    return {**first, **rows, **({"baselines": baselines} if baselines else {})}


def _boundary_settings(system: System) -> frozenset[str]:
    """Return the settings at which boundaries are scored, which takes long: some thresholds, or else all settings."""
    return _BOUNDARY_SETTINGS & {*system.settings} or frozenset(system.settings)


def _half(dataset: Dataset, half: str | None) -> Dataset:
    """Return the data set with every other image, in the order of their names."""
    if half is None:
        return dataset
    first = ("even", "odd").index(half)
    return replace(dataset, split=f"{dataset.split}-{half}", examples=dataset.examples[first::2])


def _progress(images: Iterable[T], name: str, dataset: Dataset) -> Iterator[T]:
    """Show the progress on standard error if that is a terminal."""
    total = len(dataset.examples)
    return iter(tqdm(images, desc=name, total=total, unit="image", disable=not sys.stderr.isatty()))


def _score_feedback(dataset: Dataset, segmenter: Segmenter) -> dict[str, Any]:
    """Return the scores of feedback for JSON, and print a line for each kind of segments."""
    summary = summarise_annotations([*_progress(simulated_annotations(dataset, segmenter), "feedback", dataset)])
    for name, row in summary.items():
        curve = ", ".join(f"{iou:.3f} after {n}" for n, iou in row["miou_clicks"].items())
        click.echo(
            f"feedback {name:7} mean IoU {row['miou_full_masks']:.3f} with full masks; {curve} clicks; "
            f"80 % of full masks after {row['clicks_mean']:.1f} clicks (median {row['clicks_median']:g}, "
            f"not reached by {row['unreached']} of {row['annotations']})"
        )
    return {"feedback": summary}


def _line(summary: Mapping[str, Any]) -> str:
    """Return the main scores in a line."""
    names = ("covering_ods", "covering_ois", "miou_hungarian", "miou_oracle", "accuracy", "f1", "seconds_per_image")
    scores = "  ".join(f"{name} {summary[name]:.3f}" for name in names)
    return f"{summary['system']:14} {scores}  at {summary['ods_setting']}"


def _comparison(first: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """Return the first system's scores at the number of segments of a baseline's best setting, in a line."""
    segments = next(row["segments"] for row in baseline["settings"] if row["setting"] == baseline["ods_setting"])
    scores = "  ".join(f"{measure} {value:.3f}" for measure, value in at_segments(first, segments).items())
    return f"{'':14} {first['system']} at the same {segments:.1f} segments: {scores}"
