"""`walkcut recut`."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import click

from walkcut.bulk.formats import FORMATS
from walkcut.bulk.ledger import Entry, Outcome, read_entries, read_fingerprint
from walkcut.bulk.local import in_processes
from walkcut.bulk.work import Plan, Recutter
from walkcut.cli.bulk import (
    Run,
    Wishes,
    cores,
    granularity_option,
    label_config_option,
    restart_option,
    retry_option,
    tolerance_option,
    workers_option,
)
from walkcut.cli.parts import trees_of
from walkcut.errors import SettingsError
from walkcut.segmentation.granularity import Granularity
from walkcut.settings import read_settings


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Another folder.")
@click.option("--format", "form", type=click.Choice(tuple(FORMATS)), help="[as in DIR]")
@label_config_option
@granularity_option
@tolerance_option
@workers_option
@restart_option
@retry_option
def recut(
    run: Path,
    out: Path,
    form: str | None,
    label_config: Path | None,
    granularities: Sequence[Granularity],
    tolerance: float,
    workers: int | None,
    restart: bool,  # noqa: FBT001 - the command line's switches
    retry_failed: bool,  # noqa: FBT001
) -> None:
    """Export what `walkcut prelabel` did in the folder DIR again, at another granularity, without pictures or model.

    It needs the cut trees, which are kept unless --no-trees was given.
    """
    if run.resolve() == out.resolve():
        raise SettingsError(f"{run} is the run itself: choose another folder as --out")
    settings, held = read_settings(), read_fingerprint(run)
    config = label_config.read_text() if label_config else held["label config"]
    plan = Wishes(form or held["format"], config, granularities, tolerance).plan(
        settings, held["segmenter"], held["method"], trees=True
    )
    engine = partial(_recut, plan, trees_of(settings), workers or cores())
    again = Run(settings, plan, engine, out, config, restart=restart, retry_failed=retry_failed)
    again.carry_out(read_entries(run))


def _recut(plan: Plan, trees: Path, processes: int, entries: Iterable[Entry]) -> Iterator[Outcome]:
    """Every picture's tree cut anew."""
    return in_processes(partial(Recutter, plan, trees), entries, processes=processes)
