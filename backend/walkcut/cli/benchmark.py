"""`walkcut benchmark`."""

from collections.abc import Mapping
from pathlib import Path

import click

from walkcut.cli.options import FILE, chosen_settings, model_options, random_weights_option
from walkcut.evaluation import benchmark as measurements
from walkcut.evaluation.reference import NoReferenceError
from walkcut.inference.factory import make_segmenter


@click.command()
@model_options
@random_weights_option
@click.option("--image", type=FILE, help="Image to segment.  [default: a synthetic one of 640×480]")
@click.option("--rounds", type=click.IntRange(1), default=3, help="Rounds of measurement; each stage's fastest counts.")
@click.option(
    "--reference/--no-reference",
    default=True,
    help="Also time a direct implementation of the papers' algorithm, which takes minutes.",
)
def benchmark(
    model: str | None,
    method: str | None,
    device: str | None,
    random_weights: bool,
    image: Path | None,
    rounds: int,
    reference: bool,
) -> None:
    """Measure the time and the peak memory of each stage, and compare with the papers' own algorithm."""
    settings = chosen_settings(model, method, device)
    segmenter = make_segmenter(settings, random_weights=random_weights)
    data = measurements.synthetic_image() if image is None else image.read_bytes()
    hardware = measurements.hardware(segmenter.device)
    click.echo(f"{settings.model} {settings.dtype}, method {segmenter.preset.name}, on {hardware}")
    _print_stages(measurements.measure_stages(segmenter, data, rounds=rounds))
    if not reference:
        return
    try:
        _print_comparison(measurements.compare_with_reference(segmenter, data))
    except NoReferenceError as error:
        click.echo(f"not compared with the papers' algorithm: {error}")


def _print_comparison(comparison: measurements.Comparison) -> None:
    agreement = "the same labels" if comparison.agreement == 1 else f"{comparison.agreement:.2%} of pixels equal"
    click.echo(
        f"published form after the model's passes: {comparison.seconds:.2f} s, the papers' algorithm "
        f"{comparison.reference_seconds:.2f} s: {comparison.reference_seconds / comparison.seconds:.1f} times faster; "
        f"{comparison.segments} segments, {agreement}"
    )


def _print_stages(costs: Mapping[str, measurements.StageCost]) -> None:
    """Print a table of the stages with their times and peaks, and their ratio to the model's passes."""
    for name, cost in costs.items():
        memory = "" if cost.peak is None else f"{cost.peak / 2**20:10.0f} MiB"
        click.echo(f"{name:12}{cost.seconds * 1000:10.1f} ms{memory}")
    model = sum(cost.seconds for name, cost in costs.items() if name in measurements.MODEL_STAGES)
    rest = sum(cost.seconds for cost in costs.values()) - model
    click.echo(f"{'total':12}{(model + rest) * 1000:10.1f} ms")
    if model:
        click.echo(f"without the model's passes: {rest / model:.0%} of their time")
