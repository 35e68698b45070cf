"""`walkcut evaluate`."""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from walkcut.cli.options import method_option, model_option, random_weights_option
from walkcut.evaluation.classical_baselines import PEERS
from walkcut.evaluation.datasets import DATASETS, Dataset, read_dataset
from walkcut.evaluation.interactive import feedback_scores, summarise_feedback
from walkcut.evaluation.paper_results import Published, published_rows
from walkcut.evaluation.protocols import PROTOCOLS
from walkcut.evaluation.report import Outcome, report_page
from walkcut.evaluation.runner import Run
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


@click.command()
@click.option("--dataset", required=True, type=click.Choice(tuple(DATASETS)), help="Which data set it is.")
@click.option("--root", required=True, type=click.Path(file_okay=False, path_type=Path), help="The folder it lies in.")
@click.option("--split", default="val", show_default=True, help="Which part of it.")
@click.option("--half", type=click.Choice(("even", "odd")), help="Every other image alone.")
@click.option("--protocol", type=click.Choice(tuple(PROTOCOLS)), help="Whose rules.  [native for partitions, else dwc]")
@model_option
@method_option
@random_weights_option
@click.option("--peers/--no-peers", help="Classical segmenters and the papers' baselines as well.")
@click.option("--feedback", is_flag=True, help="What an annotator's masks and clicks bring (walkcut merge) as well.")
@click.option("--json", "out", type=click.Path(dir_okay=False, path_type=Path), help="File for the scores.")
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
    out: Path | None,
    report: Path | None,
) -> None:
    """Score segmentations against what people said.

    Data sets of partitions, such as BSDS500, are scored at many granularities; those with classes at the method's own.
    With --json FILE each image's scores go to FILE.NAME.jsonl at once, and a run that was ended goes on from there.
    """
    images = _half(read_dataset(dataset, root, split), half)
    rules = PROTOCOLS[protocol or ("native" if images.partitions else "dwc")]
    settings = with_overrides(read_settings(), model=model, method=method)
    segmenter = make_segmenter(settings, random_weights=random_weights)
    granularities = LADDER if images.partitions else (Level.AUTO,)
    taught = _feedback(images, segmenter) if feedback else {}
    others = [*PEERS.values(), *baseline_systems(segmenter)] if peers else []
    outcomes: list[Outcome] = []
    for system in (TreeSystem(segmenter, granularities), *others):
        run = Run(system, images, rules, _boundary_settings(system) if images.partitions else frozenset())
        outcomes.append(_carry_out(run, out))
        click.echo(_line(outcomes[-1].summary))
        if len(outcomes) > 1:
            click.echo(_comparison(outcomes[0].summary, outcomes[-1].summary))
    published = published_rows(segmenter.preset.name, settings.model, dataset)
    for row in published:
        click.echo(
            f"{row.source}: mean IoU {row.miou}, accuracy {row.accuracy}, F1 {row.f1} ({row.averaging}, in percent)"
        )
    if out is not None:
        out.write_text(json.dumps(_document(outcomes, published) | taught, indent=2) + "\n")
    if report is not None:
        facts = {
            "Program": f"walkcut {version('walkcut')}",
            "Model": settings.model,
            "Method": describe(segmenter.preset),
            "Command": shlex.join(["walkcut", *sys.argv[1:]]),  # fit to be typed again
        }
        report.write_text(report_page(outcomes, published, facts), encoding="utf-8")


def _document(outcomes: Sequence[Outcome], published: Sequence[Published]) -> dict[str, Any]:
    """The first outcome's summary, the papers' figures for it, and its peers' summaries where there are any."""
    first, *others = (outcome.summary for outcome in outcomes)
    peers = {"peers": others} if others else {}
    return {**first, "published": [asdict(row) for row in published], **peers}


def _boundary_settings(system: System) -> frozenset[str]:
    """Settings enough for the best boundary F, which takes long: some of a tree's thresholds, all of a peer's."""
    return _BOUNDARY_SETTINGS & {*system.settings} or frozenset(system.settings)


def _half(dataset: Dataset, half: str | None) -> Dataset:
    """Every other image, in the order of their names."""
    if half is None:
        return dataset
    first = ("even", "odd").index(half)
    return replace(dataset, split=f"{dataset.split}-{half}", examples=dataset.examples[first::2])


def _carry_out(run: Run, out: Path | None) -> Outcome:
    """A run, with its progress on standard error."""
    record = None if out is None else out.with_name(f"{out.name}.{run.system.name}.jsonl")
    progress = tqdm(
        run.results(record),
        desc=run.system.name,
        total=len(run.dataset.examples),
        unit="image",
        disable=not sys.stderr.isatty(),
    )
    results = tuple(progress)
    return Outcome(run, results, summarise(run, results))


def _feedback(dataset: Dataset, segmenter: Segmenter) -> dict[str, Any]:
    """What feedback brings, for JSON and in a line for each kind of segments."""
    images = feedback_scores(dataset, segmenter)
    total = len(dataset.examples)
    summary = summarise_feedback(
        [*tqdm(images, desc="feedback", total=total, unit="image", disable=not sys.stderr.isatty())]
    )
    for name, row in summary.items():
        curve = "  ".join(f"{score:.3f} after {n}" for n, score in row["miou_clicks"].items())
        click.echo(
            f"feedback {name:7} mean IoU {row['miou_masks']:.3f} by masks  {curve} clicks  80 % of the former after "
            f"{row['clicks_mean']:.1f} (median {row['clicks_median']:g}, not reached by {row['capped']} "
            f"of {row['annotations']})"
        )
    return {"feedback": summary}


def _line(summary: Mapping[str, Any]) -> str:
    """The main scores in a line."""
    names = ("covering_ods", "covering_ois", "miou_hungarian", "miou_oracle", "accuracy", "f1", "seconds_per_image")
    scores = "  ".join(f"{name} {summary[name]:.3f}" for name in names)
    return f"{summary['candidate']:14} {scores}  at {summary['ods_setting']}"


def _comparison(ours: Mapping[str, Any], peer: Mapping[str, Any]) -> str:
    """What the first candidate scores with as many segments as a peer has at its best setting, in a line."""
    segments = next(row["segments"] for row in peer["settings"] if row["setting"] == peer["ods_setting"])
    scores = "  ".join(f"{measure} {value:.3f}" for measure, value in at_segments(ours, segments).items())
    return f"{'':14} {ours['candidate']} with its {segments:.1f} segments: {scores}"
