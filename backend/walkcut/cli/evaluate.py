"""`walkcut evaluate`."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from walkcut.cli.options import FOLDER, OUTPUT_FILE, chosen_settings, model_options, random_weights_option
from walkcut.errors import require_extra
from walkcut.evaluation.classical_baselines import CLASSICAL_BASELINES
from walkcut.evaluation.click_systems import click_systems
from walkcut.evaluation.clicks import (
    ClickCurve,
    choose_objects,
    click_curves,
    clicks_line,
    clicks_more,
    summarise_clicks,
)
from walkcut.evaluation.datasets import DATASETS, Dataset, read_dataset
from walkcut.evaluation.paper_results import paper_results
from walkcut.evaluation.protocols import PROTOCOLS, Protocol
from walkcut.evaluation.report import SystemOutcome, report_page
from walkcut.evaluation.runner import EvaluationRun
from walkcut.evaluation.simulated_annotator import simulated_annotations, summarise_annotations
from walkcut.evaluation.summary import at_segments, summarise
from walkcut.evaluation.systems import System, TreeSystem, baseline_systems
from walkcut.hierarchy.granularity import Granularity, Level, Segments, Threshold
from walkcut.inference.factory import make_segmenter
from walkcut.segmentation.presets import describe
from walkcut.segmentation.segmenter import Segmenter

_COUNTS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 60)
_TAUS = tuple(round(0.04 * step, 2) for step in range(1, 25))
LADDER: tuple[Granularity, ...] = (*map(Threshold, _TAUS), *map(Segments, _COUNTS), *Level)
_BOUNDARY_SETTINGS = frozenset(str(Threshold(tau)) for tau in _TAUS[1::3])


@click.command()
@click.option("--dataset", required=True, type=click.Choice(DATASETS), help="The data set.")
@click.option("--root", required=True, type=FOLDER, help="The data set's folder.")
@click.option("--split", default="val", help="The part of the data set.")
@click.option(
    "--half", type=click.Choice(("even", "odd")), help="Score every other image, from the first (even) or second (odd)."
)
@click.option(
    "--protocol",
    type=click.Choice(PROTOCOLS),
    help="How images are cropped, scaled and scored: native keeps their size, the others follow a paper.  "
    "[default: native for partitions, else dwc]",
)
@model_options
@random_weights_option
@click.option("--peers/--no-peers", help="Also score classical segmenters and the papers' baselines.")
@click.option("--feedback", is_flag=True, help="Also score the oracle merge by simulated masks and clicks.")
@click.option(
    "--clicks", is_flag=True, help="Also count the clicks that Select and classical methods need for an object."
)
@click.option(
    "--objects", default=150, show_default=True, type=click.IntRange(1), help="How many objects are clicked on."
)
@click.option("--json", "json_path", type=OUTPUT_FILE, help="File for the scores.")
@click.option("--report", type=OUTPUT_FILE, help="HTML file with plots and images.")
def evaluate(
    dataset: str,
    root: Path,
    split: str,
    half: str | None,
    protocol: str | None,
    model: str | None,
    method: str | None,
    device: str | None,
    random_weights: bool,
    peers: bool,
    feedback: bool,
    clicks: bool,
    objects: int,
    json_path: Path | None,
    report: Path | None,
) -> None:
    """Score segmentations against human ground truth.

    Data sets of partitions, such as BSDS500, are scored at many granularities; those with classes at the granularity
    auto. With --json FILE each image's scores are appended to FILE.NAME.jsonl, from which an interrupted run resumes.
    --peers, --clicks and --report need the extra: pip install 'walkcut[evaluation]'.
    """
    with require_extra("evaluation"):
        for module in [
            *(["sklearn"] if peers else []),
            *(["cv2"] if clicks else []),
            *(["jinja2", "matplotlib"] if report else []),
        ]:
            import_module(module)
    examples = read_dataset(dataset, root, split)
    if half is not None:
        first = ("even", "odd").index(half)
        examples = replace(examples, split=f"{examples.split}-{half}", examples=examples.examples[first::2])
    settings = chosen_settings(model, method, device)
    segmenter = make_segmenter(settings, random_weights=random_weights)
    further = _score_feedback(examples, segmenter) if feedback else {}
    further |= _score_clicks(examples, segmenter, objects) if clicks else {}
    systems: list[System] = [TreeSystem(segmenter, LADDER if examples.partitions else (Level.AUTO,))]
    if peers:
        systems += [*CLASSICAL_BASELINES.values(), *baseline_systems(segmenter)]
    rules = PROTOCOLS[protocol or ("native" if examples.partitions else "dwc")]
    outcomes = _score_systems(systems, examples, rules, json_path)
    papers = paper_results(segmenter.preset.name, settings.model, dataset)
    for row in papers:
        click.echo(
            f"{row.source}: mean IoU {row.miou}, accuracy {row.accuracy}, F1 {row.f1} ({row.averaging}, in percent)"
        )
    if json_path is not None:
        summary, *baselines = (outcome.summary for outcome in outcomes)
        document = {**summary, "paper_results": [asdict(row) for row in papers]}
        document |= {**({"baselines": baselines} if baselines else {}), **further}
        json_path.write_text(json.dumps(document, indent=2) + "\n")
        click.echo(f"scores: {json_path}")
    if report is not None:
        facts = {
            "Program": f"walkcut {version('walkcut')}",
            "Model": settings.model,
            "Method": describe(segmenter.preset),
            "Command": shlex.join(["walkcut", *sys.argv[1:]]),
        }
        report.write_text(report_page(outcomes, papers, facts), encoding="utf-8")
        click.echo(f"report: {report}")


def _score_systems(
    systems: Sequence[System], dataset: Dataset, protocol: Protocol, json_path: Path | None
) -> list[SystemOutcome]:
    """Score all systems and print a line for each, and one that compares it with the first.

    Boundaries, which take long, are scored for partitions only: at some thresholds, or else at all settings.
    """
    outcomes: list[SystemOutcome] = []
    for system in systems:
        names = frozenset(system.settings)
        boundary_settings = (_BOUNDARY_SETTINGS & names or names) if dataset.partitions else frozenset()
        run = EvaluationRun(system, dataset, protocol, boundary_settings)
        record = None if json_path is None else json_path.with_name(f"{json_path.name}.{system.name}.jsonl")
        results = tuple(tqdm(run.results(record), system.name, len(dataset.examples), unit="image", disable=None))
        outcomes.append(SystemOutcome(run, results, summarise(run, results)))
        _print_scores(outcomes[0].summary, outcomes[-1].summary)
    return outcomes


def _score_feedback(dataset: Dataset, segmenter: Segmenter) -> dict[str, Any]:
    """Return the scores of feedback for JSON, and print a line for each kind of segments."""
    annotations = simulated_annotations(dataset, segmenter)
    summary = summarise_annotations([*tqdm(annotations, "feedback", len(dataset.examples), unit="image", disable=None)])
    for name, row in summary.items():
        curve = ", ".join(f"{iou:.3f} after {n}" for n, iou in row["miou_clicks"].items())
        click.echo(
            f"feedback {name:7} mean IoU {row['miou_full_masks']:.3f} with full masks; {curve} clicks; "
            f"80 % of full masks after {row['clicks_mean']:.1f} clicks (median {row['clicks_median']:g}, "
            f"not reached by {row['unreached']} of {row['annotations']})"
        )
    return {"feedback": summary}


def _score_clicks(dataset: Dataset, segmenter: Segmenter, count: int) -> dict[str, Any]:
    """Return the numbers of clicks for JSON, and print a line for each system."""
    objects, summaries = choose_objects(dataset, count), {}
    first: Sequence[ClickCurve] = ()
    for system in click_systems(segmenter):
        curves = [*tqdm(click_curves(system, dataset, objects), system.name, len(objects), unit="object", disable=None)]
        first = first or curves
        summaries[system.name] = summary = {**summarise_clicks(curves), "more_than_select": clicks_more(curves, first)}
        click.echo(f"{system.name:14} {clicks_line(summary)}")
    return {"clicks": {"objects": [asdict(chosen) for chosen in objects], "systems": summaries}}


def _print_scores(first: Mapping[str, Any], summary: Mapping[str, Any]) -> None:
    """Print a system's main scores, and for a baseline the first system's at its best number of segments."""
    names = (
        "covering_ods",
        "covering_ois",
        "boundary_f_ods",
        "miou_hungarian",
        "miou_oracle",
        "accuracy",
        "f1",
        "seconds_per_image",
    )
    scores = "  ".join(f"{name} {summary[name]:.3f}" for name in names if name in summary)
    click.echo(f"{summary['system']:14} {scores}  at {summary['ods_setting']}")
    ends = "  ".join(f"{name} {low:.3f} to {high:.3f}" for name, (low, high) in summary["intervals"].items())
    click.echo(f"{'':14} 95 % intervals: {ends}")
    if summary is not first:
        segments = next(row["segments"] for row in summary["settings"] if row["setting"] == summary["ods_setting"])
        scores = "  ".join(f"{measure} {value:.3f}" for measure, value in at_segments(first, segments).items())
        click.echo(f"{'':14} {first['system']} at the same {segments:.1f} segments: {scores}")
