"""The image's steps and its command in a plain folder, without a Docker engine, and what its files say."""

import json
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml  # type: ignore[import-untyped]
from packaging.requirements import Requirement

from docker.first_project import make_first_project, with_credentials
from tests.builders.http_site import Site, reply, serving
from tests.docker.dockerfile import (
    Run,
    arguments_of,
    build_wheel,
    environment_of,
    exec_form,
    install,
    read_stages,
    run_command,
)
from walkcut.images import LabelStudioAccess
from walkcut.labelstudio.connection import Connection
from walkcut.settings import Settings, list_settings

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "docker"
HEAD, WHEEL, PACKAGES, IMAGE = read_stages(DOCKER / "Dockerfile")
COMPOSE_FILES = sorted(DOCKER.glob("compose*.yaml"))
SERVICES: Mapping[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]
GPU_SERVICES: Mapping[str, Any] = yaml.safe_load((DOCKER / "compose.gpu.yaml").read_text())["services"]
WALKCUT_VARIABLES = {variable for variable, _, _ in list_settings(Settings())}
LABEL_STUDIO_VARIABLES = {
    "COLLECT_ANALYTICS",
    "DJANGO_DB",
    "FRONTEND_SENTRY_DSN",
    "LABEL_STUDIO_DISABLE_SIGNUP_WITHOUT_LINK",
    "LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN",
    "LABEL_STUDIO_HOST",
    "LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT",
    "LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED",
    "LABEL_STUDIO_PASSWORD",
    "LABEL_STUDIO_USERNAME",
    "LABEL_STUDIO_USER_TOKEN",
    "LATEST_VERSION_CHECK",
    "POSTGRE_HOST",
    "POSTGRE_NAME",
    "POSTGRE_PASSWORD",
    "POSTGRE_PORT",
    "POSTGRE_USER",
    "SENTRY_DSN",
    "USER_ADDITIONAL_BANNED_SUBNETS",
    "USE_DEFAULT_BANNED_SUBNETS",
}
KNOWN_VARIABLES = {
    "walkcut": WALKCUT_VARIABLES | {"NVIDIA_DRIVER_CAPABILITIES"},
    "first-project": WALKCUT_VARIABLES,
    "label-studio": LABEL_STUDIO_VARIABLES,
    "postgres": {"POSTGRES_DB", "POSTGRES_PASSWORD", "POSTGRES_USER"},
}
OWN_VARIABLES = {"COMPOSE_PROJECT_NAME", "LABEL_STUDIO_BIND", "IMAGES_DIR", "POSTGRES_PASSWORD", "WEIGHTS_DIR"}
SECRET = re.compile(r"(PASSWORD|PASS|TOKEN|KEY|SECRET|DATABASE_URL)$")


def makefile(variable: str) -> str:
    """What the Makefile sets a variable to, less the package's name."""
    (value,) = re.findall(rf"^{variable} [:?]= [\w-]+==(\S+)$", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    return str(value)


def constraints() -> dict[str, str]:
    lines = (DOCKER / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """The root of what stands for the image, with the wheel built and installed as there."""
    with tempfile.TemporaryDirectory(prefix="walkcut-image-") as name:
        install(build_wheel(WHEEL, REPOSITORY, Path(name)), Path(name) / "opt")
        yield Path(name)


@pytest.fixture(scope="module")
def package(folder: Path) -> Distribution:
    """The package in the image."""
    (site_packages,) = folder.glob("opt/lib/python*/site-packages")
    (found,) = distributions(name="walkcut", path=[str(site_packages)])
    return found


@pytest.fixture(scope="module")
def run(folder: Path, package: Distribution) -> Run:
    """The image's command, started, asked and ended."""
    return run_command(IMAGE, folder)


def test_the_command_serves_and_its_health_check_tells(run: Run) -> None:
    assert (run.health_status, run.health_status_afterwards) == (0, 1), run.log
    assert "Traceback" not in run.log


def test_sigterm_reaches_the_process(run: Run) -> None:
    assert run.exit_status in {0, -15}, run.log


def test_the_dashboard_asks_for_metrics_that_there_are(run: Run) -> None:
    dashboard = (DOCKER / "grafana" / "walkcut.json").read_text()
    asked = set(re.findall(r"\bwalkcut_[a-z_]+\b", dashboard))
    described = set(re.findall(r"^# TYPE (\w+)", run.metrics, re.MULTILINE))
    assert asked
    assert {name.removesuffix("_bucket") for name in asked} <= described
    panels = json.loads(dashboard)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_all_dependencies_are_pinned_within_their_ranges(package: Distribution) -> None:
    pinned = constraints()
    needed = [Requirement(text) for text in package.requires or []]
    wanted = [
        requirement
        for requirement in needed
        if requirement.marker is None or requirement.marker.evaluate({"extra": "postgres"})
    ]
    assert len(wanted) > 20
    for requirement in wanted:
        assert requirement.specifier.contains(pinned[requirement.name]), requirement


def test_versions_are_those_of_the_checks(package: Distribution) -> None:
    assert constraints()["torch"] == makefile("TORCH")
    assert SERVICES["label-studio"]["image"] == f"heartexlabs/label-studio:{makefile('LABEL_STUDIO')}"
    assert f'image.version="{package.version}"' in arguments_of(IMAGE, "LABEL")[0]
    for services, kind in ((SERVICES, "cpu"), (GPU_SERVICES, "cuda")):
        assert {services[name]["image"] for name in ("walkcut", "first-project")} == {
            f"walkcut:{package.version}-{kind}"
        }


def test_base_images_are_pinned_by_full_version() -> None:
    images = [argument.split("=")[1] for argument in arguments_of(HEAD, "ARG")]
    images += [service["image"] for service in SERVICES.values()]
    for image in images:
        assert re.fullmatch(r"[\w/-]+:\d+\.\d+(\.\d+)?(-[\w-]+)?", image), image
    bases = {argument.split()[0] for stage in (WHEEL, PACKAGES, IMAGE) for argument in arguments_of(stage, "FROM")}
    assert bases == {"${PYTHON_IMAGE}"}


def test_the_image_runs_as_a_user_of_fixed_number() -> None:
    (user,) = arguments_of(IMAGE, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    assert f"-o {user.split(':')[0]} " in arguments_of(IMAGE, "RUN")[0]


def test_commands_are_in_exec_form() -> None:
    assert exec_form(arguments_of(IMAGE, "CMD")[0]) == ["walkcut", "serve"]
    (health_check,) = arguments_of(IMAGE, "HEALTHCHECK")
    assert exec_form(health_check)[0] == "python"


def test_the_image_sets_what_walkcut_knows_and_no_secret() -> None:
    environment = environment_of(IMAGE)
    ours = {name for name in environment if name.startswith(("WALKCUT_", "LABEL_STUDIO_"))}
    assert ours <= WALKCUT_VARIABLES
    assert environment["WALKCUT_HOST"] == "0.0.0.0"
    declared = [
        *environment,
        *(argument for stage in (HEAD, WHEEL, PACKAGES, IMAGE) for argument in arguments_of(stage, "ARG")),
    ]
    assert not [name for name in declared if SECRET.search(name.split("=")[0])]


def test_the_build_sees_what_it_copies_and_little_else() -> None:
    lines = (REPOSITORY / ".dockerignore").read_text().splitlines()
    let_through = {line.removeprefix("!") for line in lines if line.startswith("!")}
    copied = [argument for stage in (WHEEL, PACKAGES, IMAGE) for argument in arguments_of(stage, "COPY")]
    sources = {name for argument in copied if not argument.startswith("--from") for name in argument.split()[:-1]}
    assert "*" in lines
    assert sources == let_through


@pytest.mark.parametrize("name", ["walkcut", "first-project"])
def test_containers_have_no_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["tmpfs"] == ["/tmp"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"]


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)
def test_services_get_variables_that_they_know(file: Path) -> None:
    for name, service in yaml.safe_load(file.read_text())["services"].items():
        assert set(service.get("environment", {})) <= KNOWN_VARIABLES[name]


@pytest.mark.parametrize("file", COMPOSE_FILES, ids=lambda file: file.name)
def test_secrets_come_from_the_environment_alone(file: Path) -> None:
    for service in yaml.safe_load(file.read_text())["services"].values():
        for name, value in service.get("environment", {}).items():
            if SECRET.search(name) and value not in {None, "true"}:
                assert re.fullmatch(r"\$\{\w+:\?set it in \.env\}", value), name


def test_the_example_names_all_variables_and_holds_no_secret() -> None:
    text = "".join(file.read_text() for file in COMPOSE_FILES)
    without_value = {
        name for service in SERVICES.values() for name, value in service.get("environment", {}).items() if value is None
    }
    wanted = set(re.findall(r"\$\{(\w+)", text)) | without_value | {"COMPOSE_PROJECT_NAME"}
    example = dict(re.findall(r"^#?([A-Z_]+)=(.*)$", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    assert set(example) == wanted
    assert wanted <= WALKCUT_VARIABLES | LABEL_STUDIO_VARIABLES | OWN_VARIABLES
    assert not {name for name, value in example.items() if SECRET.search(name) and value}


def test_no_file_holds_what_looks_like_a_secret() -> None:
    for file in (
        path for path in DOCKER.rglob("*") if path.is_file() and path.suffix != ".pyc" and path.name != ".env"
    ):
        assert not re.search(r"\b[0-9a-f]{32,}\b|eyJ[\w-]{20,}|://[^/\s:{}]+:[^@\s{}A-Z]+@", file.read_text()), file


def test_label_studio_reaches_walkcut_by_a_name_that_webhooks_take() -> None:
    aliases = SERVICES["walkcut"]["networks"]["default"]["aliases"]
    host = SERVICES["first-project"]["command"][-1].removeprefix("http://").partition(":")[0]
    assert host in aliases
    assert "." in host  # Label Studio's webhooks take no other


def test_the_gpu_file_changes_the_build_and_reserves_a_device() -> None:
    (switch,) = GPU_SERVICES["walkcut"]["build"]["args"]
    assert switch in {argument.partition("=")[0] for argument in arguments_of(PACKAGES, "ARG")}
    assert GPU_SERVICES["walkcut"]["environment"]["WALKCUT_DEVICE"] == "cuda"
    (device,) = GPU_SERVICES["walkcut"]["deploy"]["resources"]["reservations"]["devices"]
    assert device["capabilities"] == ["gpu"]


class FakeLabelStudio(Site):
    """As much of Label Studio as the first project needs; `refused` is the backend that it does not attach."""

    def __init__(self, *, refused: str = "") -> None:
        super().__init__()
        self.refused = refused
        self.titles: list[str] = []
        self.backends: list[str] = []
        self.tasks: list[object] = []
        self.routes = {
            "/api/projects/": self._projects,
            "/api/projects/1/": self._delete,
            "/api/ml/": self._attach,
            "/api/projects/1/import": self._import,
        }

    def _projects(self, handler: BaseHTTPRequestHandler) -> None:
        if handler.command == "POST":
            self.titles.append(json.loads(self.seen[-1].body)["title"])
        _document({"count": len(self.titles), "id": len(self.titles)}, handler)

    def _delete(self, handler: BaseHTTPRequestHandler) -> None:
        assert handler.command == "DELETE"
        self.titles.pop()
        reply(204)(handler)

    def _attach(self, handler: BaseHTTPRequestHandler) -> None:
        backend = json.loads(self.seen[-1].body)
        if backend["url"] == self.refused:
            _document({"detail": "no backend there"}, handler, 400)
        else:
            assert backend["project"] == 1
            assert backend["is_interactive"]
            self.backends.append(backend["url"])
            _document({}, handler, 201)

    def _import(self, handler: BaseHTTPRequestHandler) -> None:
        self.tasks += json.loads(self.seen[-1].body)
        _document({}, handler, 201)


def _document(document: object, handler: BaseHTTPRequestHandler, status: int = 200) -> None:
    reply(status, json.dumps(document).encode())(handler)


def test_the_first_project_is_made_once() -> None:
    with serving(FakeLabelStudio()) as site, closing(Connection(LabelStudioAccess(site.url, "token"))) as connection:
        assert make_first_project(connection, "http://walkcut.internal:9090", "<View/>", [{"data": {}}])
        assert not make_first_project(connection, "http://walkcut.internal:9090", "<View/>", [{"data": {}}])
        assert site.titles == ["walkcut"]
        assert site.backends == ["http://walkcut.internal:9090"]
        assert site.tasks == [{"data": {}}]


def test_no_project_is_left_without_its_backend() -> None:
    site = FakeLabelStudio(refused="http://walkcut.internal:9090")
    with serving(site), closing(Connection(LabelStudioAccess(site.url, "token"))) as connection:
        with pytest.raises(httpx.HTTPStatusError, match="400") as caught:
            make_first_project(connection, "http://walkcut.internal:9090", "<View/>", [])
        assert "no backend there" in caught.value.response.text
        assert site.titles == []


def test_credentials_stand_in_the_url_quoted() -> None:
    assert with_credentials("http://walkcut.internal:9090", "", "") == "http://walkcut.internal:9090"
    assert with_credentials("http://w.internal:9090", "ls", "a@b/c:d") == "http://ls:a%40b%2Fc%3Ad@w.internal:9090"
