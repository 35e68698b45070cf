"""Make the first project of a new Label Studio, with walkcut attached and a sample task."""

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
    """Make a project with the backend of this URL, and tell whether it was made: not where there are projects.

    `client` is the SDK's `LabelStudio`. Without the backend no project is left behind. Raises `ApiError` with Label
    Studio's reason.
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
    """The URL with user name and password, if any: Label Studio's webhooks send none that are not in it."""
    if not user and not password:
        return url
    return urlsplit(url)._replace(netloc=f"{quote(user, '')}:{quote(password, '')}@{urlsplit(url).netloc}").geturl()


def main() -> None:
    """Ask the Label Studio of the settings; the backend's URL is the argument."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings, plain = read_settings(), sys.argv[1]
    backend = with_credentials(plain, settings.basic_auth_user, settings.basic_auth_pass)
    label_config = (FILES / "walkcut.xml").read_text(encoding="utf-8")
    tasks = json.loads((FILES / "sample_task.json").read_text(encoding="utf-8"))
    client = LabelStudio(base_url=settings.label_studio_url, api_key=settings.label_studio_api_key)
    try:
        made = make_first_project(client, backend, label_config, tasks)
    except ApiError as error:  # it quotes the URL, with the password
        said = str(error.body).replace(backend, plain)
        sys.exit(f"Label Studio made no first project ({error.status_code}): {said}")
    log.info("the first project is made" if made else "there are projects already: nothing to do")


if __name__ == "__main__":
    main()
