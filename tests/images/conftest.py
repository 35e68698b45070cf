from collections.abc import Iterator

import pytest

from tests.builders.http_site import Site, serving


@pytest.fixture
def site() -> Iterator[Site]:
    """A server that plays Label Studio."""
    with serving(Site()) as server:
        yield server


@pytest.fixture
def elsewhere() -> Iterator[Site]:
    """A second server, of another origin."""
    with serving(Site()) as server:
        yield server
