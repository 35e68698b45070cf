"""`walkcut benchmark`."""

from pathlib import Path

import click

from walkcut.cli.options import model_options
from walkcut.evaluation.benchmark import (
    MODEL_STAGES,
    Comparison,
    StageCost,
    compare_with_reference,
    hardware,
    measure_stages,
    synthetic_image,
)
from walkcut.inference.factory import make_segmenter, with_overrides
from walkcut.settings import read_settings


@click.command()
@model_options
@click.option(
    "--image",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Image to segment.  [default: a synthetic one of 640×480]",
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="Rounds of measurement; the fastest of each stage counts.",
)
@click.option(
    "--reference/--no-reference",
    default=True,
    show_default=True,
    help="Also time a direct implementation of the papers' algorithm, which takes minutes.",
)
def benchmark(
    model: str | None,
    method: str | None,
    random_weights: bool,  # noqa: FBT001 - the command line's switches
    image: Path | None,
    rounds: int,
    reference: bool,  # noqa: FBT001
) -> None:
    """Measure the time and the peak memory of each stage, and compare with the papers' own algorithm."""
    settings = with_overrides(read_settings(), model=model, method=method)
    segmenter = make_segmenter(settings, random_weights=random_weights)
    data = synthetic_image() if image is None else image.read_bytes()
    click.echo(f"{settings.model} {settings.dtype}, method {segmenter.preset.name}, on {hardware(segmenter.device)}")
    click.echo(stage_table(measure_stages(segmenter, data, rounds=rounds)))
    if reference:
        click.echo(comparison_line(compare_with_reference(segmenter, data)))


def stage_table(costs: dict[str, StageCost]) -> str:
    """Return a table of the stages with their times and peaks, and their ratio to the model's passes."""
    rows = [f"{name:12}{cost.seconds * 1000:10.1f} ms{_mebibytes(cost.peak)}" for name, cost in costs.items()]
    model = sum(cost.seconds for name, cost in costs.items() if name in MODEL_STAGES)
    rest = sum(cost.seconds for cost in costs.values()) - model
    rows.append(f"{'total':12}{(model + rest) * 1000:10.1f} ms")
    if model:
        rows.append(f"without the model's passes: {rest / model:.0%} of their time")
    return "\n".join(rows)


def comparison_line(comparison: Comparison) -> str:
    """Return the comparison with the papers' algorithm in a line."""
    agreement = "the same labels" if comparison.agreement == 1 else f"{comparison.agreement:.2%} of pixels equal"
    return (
        f"published form after the model's passes: {comparison.seconds:.2f} s, the papers' algorithm "
        f"{comparison.reference_seconds:.2f} s: {comparison.reference_seconds / comparison.seconds:.1f} times faster; "
        f"{comparison.segments} segments, {agreement}"
    )


def _mebibytes(peak: int | None) -> str:
    return "" if peak is None else f"{peak / 2**20:10.0f} MiB"
