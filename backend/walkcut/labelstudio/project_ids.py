"""Project ids as Label Studio sends them."""

import re
from collections.abc import Mapping


def parse_project_id(project: object) -> str:
    """Return a project's id as text, empty for anything else.

    Label Studio sends the id alone, or with the time of creation, or within the project's document:

    >>> parse_project_id("4.1795164114"), parse_project_id({"id": 4}), parse_project_id(None)
    ('4', '4', '')
    """
    text = str(project.get("id") if isinstance(project, Mapping) else project)
    match = re.fullmatch(r"0*([0-9]{1,18})(\.[0-9]*)?", text)
    return match[1] if match else ""
