"""What the end-to-end tests share: one Label Studio, one backend and one browser for the whole run."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from tests.builders.processes import free_port, run_walkcut, served
from tests.e2e.browser import Editor
from tests.e2e.chromium import chromium
from tests.e2e.label_studio import LabelStudio, running_label_studio

REPOSITORY = Path(__file__).resolve().parents[2]
ARTIFACTS = REPOSITORY / "artifacts"
CHROMIUM = Path("/usr/bin/chromium")
CHROMEDRIVER = Path("/usr/bin/chromedriver")
BACKEND_START_S = 60.0


def need(executable: Path) -> Path:
    """An executable that the end-to-end tests cannot do without; where it is absent, skip, or fail if required."""
    if executable.exists():
        return executable
    reason = f"no {executable}: `make test` sets up what the end-to-end tests need"
    if os.environ.get("REQUIRE_E2E") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def label_studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabelStudio]:
    """A fresh Label Studio with its own defaults, signed in."""
    default = REPOSITORY / ".venv-label-studio" / "bin" / "label-studio"
    executable = need(Path(os.environ.get("TEST_LABEL_STUDIO", default)))
    with running_label_studio(executable, tmp_path_factory.mktemp("label-studio")) as url:
        client = LabelStudio(url)
        yield client
        client.close()


@pytest.fixture(scope="session")
def access_token(label_studio: LabelStudio) -> str:
    """The user's personal access token; Label Studio gives out one per user, once."""
    return label_studio.personal_access_token()


@pytest.fixture(scope="session")
def environment(
    label_studio: LabelStudio, access_token: str, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[str, str]:
    """What the backend, and whoever works beside it, is told: its state folder, and Label Studio with a token."""
    return {
        "WALKCUT_STATE_DIR": str(tmp_path_factory.mktemp("walkcut")),
        "LABEL_STUDIO_URL": label_studio.url,
        "LABEL_STUDIO_API_KEY": access_token,
    }


@pytest.fixture(scope="session")
def backend(environment: Mapping[str, str]) -> Iterator[str]:
    """`walkcut serve`; its base URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "walkcut", "serve", "--port", str(port)]
    log = Path(environment["WALKCUT_STATE_DIR"]) / "walkcut.log"
    with served(command, url, environment=environment, log=log, timeout_s=BACKEND_START_S):
        yield url


@pytest.fixture(scope="session")
def walkcut(environment: Mapping[str, str]) -> Callable[..., str]:
    """The command `walkcut` beside the running backend; what it prints."""

    return partial(run_walkcut, environment)


@pytest.fixture(scope="session")
def editor(label_studio: LabelStudio) -> Iterator[Editor]:
    """The labelling screen in headless Chromium, signed in."""
    with chromium(need(CHROMIUM), need(CHROMEDRIVER)) as browser:
        editor = Editor(browser, label_studio.url)
        editor.login()
        yield editor


@pytest.fixture(scope="session")
def label_config() -> str:
    """The labelling config that annotators use."""
    return (REPOSITORY / "labelstudio_config" / "walkcut.xml").read_text(encoding="utf-8")


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """Where screenshots are kept after the run."""
    ARTIFACTS.mkdir(exist_ok=True)
    return ARTIFACTS
