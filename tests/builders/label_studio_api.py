"""Label Studio's API on a test server: JSON replies, a token, a backend and its webhook."""

import json
from typing import Any

from tests.builders.http_site import Route, reply

LEGACY_TOKEN = "0123456789abcdef" * 2
BACKEND_URL = "http://walkcut:9090"
BACKEND: dict[str, Any] = {
    "url": BACKEND_URL,
    "state": "CO",
    "readable_state": "Connected",
    "model_version": "auto 000001",
    "is_interactive": True,
}
WEBHOOK: dict[str, Any] = {
    "url": f"{BACKEND_URL}/webhook",
    "is_active": True,
    "send_payload": True,
    "send_for_all_actions": True,
    "actions": [],
    "headers": {},
}


def json_reply(content: object, status: int = 200, **headers: str) -> Route:
    """Return a route that answers with a JSON document."""
    return reply(status, json.dumps(content).encode(), headers)
