import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from walkcut.cli import main
from walkcut.doctor import Finding

FINE = Finding("port", "ok", "free")
SLOW = Finding("latency", "warning", "slow " * 40, "set WALKCUT_DEVICE=cuda, or see http://a-host-with-hyphens.test/")
BROKEN = Finding("disk", "error", "full", "free some space")


def doctor(monkeypatch: pytest.MonkeyPatch, findings: Sequence[Finding], *arguments: str) -> Result:
    """Run the command with these findings."""
    targets: list[tuple[int | None, int | None]] = []

    def diagnose(_settings: object, project_id: int | None, task_id: int | None) -> Sequence[Finding]:
        targets.append((project_id, task_id))
        return findings

    monkeypatch.setattr("walkcut.cli.doctor.diagnose", diagnose)
    result = CliRunner().invoke(main, ["doctor", *arguments], terminal_width=80, env={"COLUMNS": "80"})
    assert targets in ([], [(None, None)], [(3, 5)])
    return result


def test_findings_stand_in_columns_with_the_remedy_below(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, [FINE, SLOW])
    lines = result.stdout.splitlines()
    assert lines[0].startswith("ok       settings     model classical (auto)")
    findings = lines[lines.index("ok       port         free") :]
    assert findings[1].startswith("warning  latency      slow slow")
    assert max(map(len, lines)) <= 80
    arrow = next(index for index, line in enumerate(findings) if "→" in line)
    assert findings[arrow] == " " * 22 + "→ set WALKCUT_DEVICE=cuda, or see"
    assert findings[arrow + 1] == " " * 24 + "http://a-host-with-hyphens.test/"
    assert lines[-2] == "errors: 0, warnings: 1, ok: 2"
    assert "--project ID" in lines[-1]
    assert result.exit_code == 0


def test_an_error_is_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, [BROKEN, FINE], "--project", "3", "--task", "5")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "errors: 1, warnings: 0, ok: 2"


def test_scripts_get_json(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, [BROKEN], "--json")
    assert json.loads(result.stdout)[1:] == [
        {"check": "disk", "severity": "error", "message": "full", "remedy": "free some space"},
    ]
    assert result.exit_code == 1


def test_settings_that_cannot_be_read_are_the_only_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALKCUT_PORT", "many")
    result = doctor(monkeypatch, [FINE], "--json")
    (finding,) = json.loads(result.stdout)
    assert (finding["check"], finding["severity"]) == ("settings", "error")
    assert "WALKCUT_PORT='many' cannot be used" in finding["remedy"]
    assert result.exit_code == 1


def test_a_misspelled_variable_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WALKCUT_PROT", "9091")
    result = doctor(monkeypatch, [], "--json")
    warnings = [finding["message"] for finding in json.loads(result.stdout) if finding["severity"] == "warning"]
    assert "WALKCUT_PROT is not a setting: did you mean WALKCUT_PORT?" in warnings


def test_a_task_needs_its_project(monkeypatch: pytest.MonkeyPatch) -> None:
    result = doctor(monkeypatch, [], "--task", "5")
    assert result.exit_code == 1
    assert "--task needs --project" in result.stderr


def test_a_diagnosis_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("walkcut.doctor.server._IMAGE_SIZE", (48, 64))
    for variable in ("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    environment = {"WALKCUT_STATE_DIR": str(tmp_path), "WALKCUT_PORT": "0"}
    result = CliRunner().invoke(main, ["doctor", "--json"], env=environment)
    severities = {finding["check"]: finding["severity"] for finding in json.loads(result.stdout)}
    assert severities["latency"] == "ok"
    assert severities["address"] == "warning"
