"""README and docs agree with the code: settings, commands, paths, links and examples."""

import doctest
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from walkcut.backbones.onnx_model import load_onnx
from walkcut.cli import main

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md")), ROOT / "benchmarks" / "RESULTS.md"]
TEXT = {page: page.read_text(encoding="utf-8") for page in PAGES}
USAGE = {page: text for page, text in TEXT.items() if page.name != "CHANGELOG.md"}  # what is true now

every_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
usage_page = pytest.mark.parametrize("page", USAGE, ids=lambda page: page.name)


def code_spans(text: str) -> list[str]:
    """Inline code outside of code blocks, on one line each."""
    prose = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def shell_lines(text: str) -> list[str]:
    """Lines of shell code blocks, continued lines joined."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, flags=re.MULTILINE | re.DOTALL)
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()]


def commands(text: str) -> list[list[str]]:
    """Words of each `walkcut` command, without environment variables and comments."""
    words = [shlex.split(line.replace("…", ""), comments=True) for line in (*shell_lines(text), *code_spans(text))]
    return [line[1:] for line in words if line[:1] == ["walkcut"]]


def resolve(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and its arguments."""
    command: click.Command = main
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        context = click.Context(command)
        child = command.get_command(context, words[0])
        assert child is not None, f"there is no command {words[0]!r}: {command.list_commands(context)}"
        command, words = child, words[1:]
    return command, words


def options(command: click.Command) -> set[str]:
    own = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    return own | {"--help", "--version"}


def all_commands(command: click.Command = main) -> Iterator[click.Command]:
    yield command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from all_commands(child)


def printed_settings() -> dict[str, str]:
    """Variables and defaults as `walkcut settings` prints them."""
    environment = dict.fromkeys(documented_settings(), "")
    result = CliRunner().invoke(main, ["settings"], env=environment)
    assert result.exit_code == 0, result.output
    rows = re.findall(r"^([A-Z][A-Z_]+)\s+(\S+)", result.stdout, flags=re.MULTILINE)
    return {variable: "" if value == "-" else value for variable, value in rows}


def documented_settings() -> dict[str, str]:
    table = TEXT[DOCS / "operations.md"].partition("## Settings")[2].partition("\n## ")[0]
    rows = [[cell.strip(" `") for cell in line.split("|")] for line in table.splitlines() if line.startswith("| `")]
    return {variable: default for _, variable, default, *_ in rows}


def same_value(left: str, right: str) -> bool:
    try:
        return float(left) == float(right)
    except ValueError:
        return left.lower() == right.lower()


def slug(heading: str) -> str:
    return re.sub(r"[^\w -]", "", heading.lower().strip()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", TEXT[page], flags=re.MULTILINE)}


def test_the_settings_table_lists_every_setting_with_its_default() -> None:
    documented, printed = documented_settings(), printed_settings()
    assert documented.keys() == printed.keys()
    defaults = {variable: value for variable, value in documented.items() if variable != "WALKCUT_STATE_DIR"}
    wrong = {name: (value, printed[name]) for name, value in defaults.items() if not same_value(value, printed[name])}
    assert not wrong


@usage_page
def test_variables_are_settings(page: Path) -> None:
    mentioned = set(re.findall(r"\b(?:WALKCUT|LABEL_STUDIO)_[A-Z_]+\b", TEXT[page]))
    assert mentioned <= documented_settings().keys()


@usage_page
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(TEXT[page]):
        command, arguments = resolve(words)
        given = {word.partition("=")[0] for word in arguments if word.startswith("-")}
        assert given <= options(command), words


@usage_page
def test_options_by_themselves_exist(page: Path) -> None:
    known = set.union(*map(options, all_commands()))
    given = {span.split()[0] for span in code_spans(TEXT[page]) if span.startswith("--")}
    assert given <= known


@usage_page
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]\w*):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    given = re.findall(r"\bmake ([a-z]\w*)", "\n".join([*shell_lines(TEXT[page]), *code_spans(TEXT[page])]))
    assert set(given) <= targets


@usage_page
def test_benchmarks_exist(page: Path) -> None:
    for name in re.findall(r"python -m benchmarks\.(\w+)", TEXT[page]):
        assert (ROOT / "benchmarks" / f"{name}.py").exists(), name


@usage_page
def test_extras_exist(page: Path) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    section = project.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    extras = re.findall(r"^(\w+) = \[", section, flags=re.MULTILINE)
    assert set(re.findall(r"\bextra `(\w+)`", TEXT[page])) <= set(extras)


@usage_page
def test_paths_exist(page: Path) -> None:
    roots = (ROOT, ROOT / "backend" / "walkcut")
    spans = {span for span in code_spans(TEXT[page]) if re.fullmatch(r"[\w.-]+(/[\w.-]+)*(\.py|\.md|\.xml|/)", span)}
    generated = {"site/", "Annotations/IMAGE.xml", "model.py", "photos/", "methods/", "algorithms/"}
    assert not [span for span in spans - generated if not any((root / span).exists() for root in roots)]


@every_page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXT[page]):
        if not re.match(r"https?:", target):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            assert linked.exists(), target
            assert not anchor or anchor in anchors(linked), target


def test_links_of_the_site_stay_in_its_folder() -> None:
    targets = [target for page in DOCS.glob("*.md") for target in re.findall(r"\]\(([^)\s]+)\)", TEXT[page])]
    assert not [target for target in targets if target.startswith("..")]


def test_every_page_is_in_the_navigation() -> None:
    navigation = re.findall(r'= "([\w-]+\.md)"', (ROOT / "zensical.toml").read_text(encoding="utf-8"))
    assert sorted(navigation) == sorted(page.name for page in DOCS.glob("*.md"))


def test_every_folder_is_in_the_architecture() -> None:
    package = ROOT / "backend" / "walkcut"
    names = {path.stem for path in package.iterdir() if not path.name.startswith("_")}
    table = set(re.findall(r"`(\w+)/?`", TEXT[DOCS / "architecture.md"]))
    drawn = set(re.findall(r'class="name"[^>]*>(\w+)<', (DOCS / "architecture.svg").read_text(encoding="utf-8")))
    assert names - {"py"} == drawn
    assert drawn <= table


def test_the_examples_of_the_library_run() -> None:
    result = doctest.testfile(str(DOCS / "library.md"), module_relative=False)
    assert result.attempted > 0
    assert result.failed == 0


@pytest.mark.slow
def test_the_exports_of_networks_run_and_give_models(tmp_path: Path) -> None:
    for block in re.findall(r"^```python\n(.*?)^```", TEXT[DOCS / "networks.md"], flags=re.MULTILINE | re.DOTALL):
        ran = subprocess.run([sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
    edges, features = (load_onnx(tmp_path / name).network for name in ("edges.onnx", "features.onnx"))
    assert (edges.outputs, edges.multiple, edges.fixed) == (("contour",), 1, (None, None))
    assert (features.outputs, features.multiple, features.weight) == (("features",), 8, 2)


@pytest.mark.skipif(importlib.util.find_spec("zensical") is None, reason="zensical needs Python 3.11")
def test_the_site_builds_and_asks_no_other_host(tmp_path: Path) -> None:
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    shutil.copytree(DOCS, tmp_path / "docs")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    built = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = [page.read_text(encoding="utf-8") for page in (tmp_path / "site").glob("*.html")]
    assert len(pages) == len(list(DOCS.glob("*.md"))) + 1  # and 404.html
    tags = [tag for page in pages for tag in re.findall(r"<(?:link|script|img|source|iframe)\b[^>]*>", page)]
    assert not [tag for tag in tags if re.search(r"(?:https?:)?//", tag)]
