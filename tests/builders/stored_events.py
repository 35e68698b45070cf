"""Events of a store, with those that are done."""

import sqlalchemy as sa

from walkcut.storage import Event, ProjectStore
from walkcut.storage.tables import EVENTS


def stored_events(store: ProjectStore, project_id: str) -> list[Event]:
    """Return a project's events in the order of arrival; the body of a done one is empty."""
    columns = EVENTS.c.action, EVENTS.c.project_id, EVENTS.c.body
    query = sa.select(*columns).where(EVENTS.c.project_id == project_id).order_by(EVENTS.c.id)
    return [Event(*row) for row in store._rows(query)]
