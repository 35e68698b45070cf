"""`walkcut repair`."""

import click

from walkcut.errors import SettingsError
from walkcut.settings import read_settings
from walkcut.storage.repair import repair_database


@click.command()
def repair() -> None:
    """Set a damaged database aside and begin a new one.

    Stop `walkcut serve` first. The damaged file is renamed, not deleted. Settings of projects are kept as far as they
    can be read. After the start, annotations are fetched from Label Studio and learned from again, if LABEL_STUDIO_URL
    and LABEL_STUDIO_API_KEY are set; feedback that was disabled with `walkcut project undo` counts again.
    """
    settings = read_settings()
    if settings.database_url:
        raise SettingsError(
            "WALKCUT_DATABASE_URL is set: repair or restore that database with its own tools; `walkcut repair` is for "
            "the SQLite file in WALKCUT_STATE_DIR"
        )
    result = repair_database(settings.state_dir)
    if result is None:
        click.echo(f"the database in {settings.state_dir} is not damaged: nothing was changed")
        return
    click.echo(f"set aside as {result.aside}")
    kept = f"projects {', '.join(result.project_ids)}" if result.project_ids else "no project could be read"
    click.echo(f"new database: {kept}; start `walkcut serve` to fetch the annotations from Label Studio")
