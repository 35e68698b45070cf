"""Make the first project of a new Label Studio, with walkcut attached and a sample task."""

import json
import logging
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from walkcut.images import LabelStudioAccess
from walkcut.labelstudio.connection import Connection
from walkcut.settings import read_settings

TITLE = "walkcut"
FILES = Path(__file__).parent / "labelstudio_config"
log = logging.getLogger(__name__)


def make_first_project(connection: Connection, backend: str, label_config: str, tasks: list[dict[str, object]]) -> bool:
    """Make a project with the backend of this URL, and tell whether it was made: not where there are projects.

    Without the backend no project is left behind. Raises `httpx.HTTPStatusError` with Label Studio's reason.
    """
    if _send(connection, "GET", "/api/projects/")["count"]:
        return False
    project = _send(connection, "POST", "/api/projects/", {"title": TITLE, "label_config": label_config})["id"]
    try:
        attached = {"url": backend, "project": project, "title": TITLE, "is_interactive": True}
        _send(connection, "POST", "/api/ml/", attached)
        _send(connection, "POST", f"/api/projects/{project}/import", tasks)
    except httpx.HTTPStatusError:
        connection.request("DELETE", f"/api/projects/{project}/").raise_for_status()
        raise
    return True


def _send(connection: Connection, method: str, path: str, document: object = None) -> Any:
    return connection.request(method, path, json=document).raise_for_status().json()


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
    access = LabelStudioAccess(settings.label_studio_url, settings.label_studio_api_key)
    try:
        with closing(Connection(access)) as connection:
            made = make_first_project(connection, backend, label_config, tasks)
    except httpx.HTTPStatusError as error:  # its body quotes the URL, with the password
        reason = error.response.text.replace(backend, plain)
        sys.exit(f"Label Studio made no first project ({error.response.status_code}): {reason}")
    log.info("the first project is made" if made else "there are projects already: nothing to do")


if __name__ == "__main__":
    main()
