"""Create the first project of a new Label Studio, with walkcut connected and a sample task."""

import json
import logging
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from label_studio_sdk import LabelStudio
from label_studio_sdk.core import ApiError

from walkcut.settings import read_settings

TITLE = "walkcut"
FILES = Path(__file__).parent / "labelstudio_config"
log = logging.getLogger(__name__)


def make_first_project(client: Any, backend: str, label_config: str, tasks: list[dict[str, object]]) -> bool:
    """Create a project connected to the backend at this URL; return whether it was created: not if one exists.

    `client` is the SDK's `LabelStudio`. If connecting fails, the project is deleted again. Raises `ApiError`.
    """
    if list(client.projects.list()):
        return False
    project = client.projects.create(title=TITLE, label_config=label_config)
    try:
        client.ml.create(url=backend, project=project.id, title=TITLE, is_interactive=True)
        client.projects.import_tasks(project.id, request=tasks)
    except ApiError:
        client.projects.delete(project.id)
        raise
    return True


def with_credentials(url: str, user: str, password: str) -> str:
    """Return the URL with user name and password, if any: Label Studio's webhooks send those of the URL only."""
    if not user and not password:
        return url
    return urlsplit(url)._replace(netloc=f"{quote(user, '')}:{quote(password, '')}@{urlsplit(url).netloc}").geturl()


def main() -> None:
    """Create the project in the Label Studio of the settings; the argument is the backend's URL."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings, url = read_settings(), sys.argv[1]
    backend = with_credentials(url, settings.basic_auth_user, settings.basic_auth_pass)
    label_config = (FILES / "walkcut.xml").read_text(encoding="utf-8")
    tasks = json.loads((FILES / "sample_task.json").read_text(encoding="utf-8"))
    client = LabelStudio(base_url=settings.label_studio_url, api_key=settings.label_studio_api_key)
    try:
        created = make_first_project(client, backend, label_config, tasks)
    except ApiError as error:
        message = str(error.body).replace(backend, url)  # without the password
        sys.exit(f"Label Studio did not create the first project ({error.status_code}): {message}")
    log.info("created the first project" if created else "nothing to do: there is a project already")


if __name__ == "__main__":
    main()
