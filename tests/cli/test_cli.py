import errno
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click import Context
from click.testing import CliRunner, Result
from PIL import Image

from tests.builders.processes import free_port, is_up, wait_for
from tests.builders.scenes import agreement, png, quarter_labels, quarters
from tests.builders.tiny_diffusion import write_folder
from walkcut.cli import main
from walkcut.errors import SettingsError
from walkcut.hierarchy.cut_tree import CutTree
from walkcut.hierarchy.granularity import Level, Segments
from walkcut.settings import Settings


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "quarters.png"
    path.write_bytes(png(quarters(48, 64)))
    return path


def run(*arguments: object, environment: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], env=environment)


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def files(folder: Path) -> Sequence[str]:
    return sorted(path.name for path in folder.iterdir())


def test_segment_writes_labels_an_overlay_and_a_line(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    result = run("segment", image, "--out", out, "--granularity", "4")
    assert result.exit_code == 0, result.output
    (line,) = lines(result)
    assert (line["image"], line["segments"], line["granularity"]) == (str(image), 4, "4")
    assert line["seconds"] > 0
    assert files(out) == ["quarters.overlay.png", "quarters.png"]
    with Image.open(out / "quarters.png") as label_image:
        assert label_image.mode.startswith("I;16")
        labels = np.asarray(label_image)
    assert np.unique(labels).tolist() == [1, 2, 3, 4]
    assert agreement(labels, quarter_labels(48, 64)) > 0.9
    with Image.open(out / "quarters.overlay.png") as overlay:
        assert (overlay.mode, overlay.size) == ("RGB", (64, 48))


def test_a_stored_tree_holds_every_granularity(image: Path, tmp_path: Path) -> None:
    run("segment", image, "--out", tmp_path / "out", "--tree", "--granularity", "fine")
    tree = CutTree.from_bytes((tmp_path / "out" / "quarters.tree.npz").read_bytes())
    with Image.open(tmp_path / "out" / "quarters.png") as label_image:
        labels = np.asarray(label_image)
    assert (tree.labels(Level.FINE) + 1).tolist() == labels.tolist()
    assert tree.segment_count(Segments(2)) == 2


def test_an_upright_image_comes_out_of_a_turned_one(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(quarters(48, 64)).save(tmp_path / "turned.jpg", exif=exif)
    assert run("segment", tmp_path / "turned.jpg", "--out", tmp_path / "out").exit_code == 0
    with Image.open(tmp_path / "out" / "turned.png") as labels:
        assert labels.size == (48, 64)


def test_unreadable_images_are_named_and_the_others_are_segmented(image: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    result = run("segment", tmp_path / "broken.png", tmp_path / "gone.png", image, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert [line["image"] for line in lines(result)] == [str(image)]
    assert f"{tmp_path / 'broken.png'}: 8 bytes that begin with b'no i' are not in a supported" in result.stderr
    assert f"{tmp_path / 'gone.png'}: No such file or directory" in result.stderr
    assert "Traceback" not in result.stderr


def test_two_images_of_one_name_do_not_overwrite_each_other(image: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twin = tmp_path / "other" / "quarters.png"
    twin.write_bytes(png(quarters(20, 20)))
    result = run("segment", image, twin, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    first, second = (line["name"] for line in lines(result))
    assert (first, second.startswith("quarters-")) == ("quarters", True)
    for name, size in ((first, (64, 48)), (second, (20, 20))):
        with Image.open(tmp_path / "out" / f"{name}.png") as labels:
            assert labels.size == size


def test_an_image_that_is_named_twice_is_segmented_once(image: Path, tmp_path: Path) -> None:
    result = run(
        "segment", image, image.parent, f"{image.parent}/../{image.parent.name}/{image.name}", "--out", tmp_path / "out"
    )
    assert "1 done, 0 failed" in result.stderr
    assert "2 skipped: listed before" in result.stderr


def test_a_folder_is_segmented_with_its_folders_and_what_is_skipped_is_counted(image: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / "cam 1").mkdir(parents=True)
    (photos / "cam 1" / "图片.jfif").write_bytes(image.read_bytes())
    (photos / "plain").write_bytes(image.read_bytes())
    (photos / "notes.txt").write_text("no image")
    (photos / "bad.jpg").write_text("no image")
    for _ in range(2):
        result = run("segment", photos, "--out", photos / "masks")
        assert result.exit_code == 1
        assert [line["name"] for line in lines(result)] == ["plain", "cam 1/图片"]
        assert result.stderr.splitlines()[-1] == "2 done, 1 failed, 1 skipped"
        assert f"({photos / 'notes.txt'})" in result.stderr
    assert files(photos / "masks") == ["cam 1", "plain.overlay.png", "plain.png"]
    assert files(photos / "masks" / "cam 1") == ["图片.overlay.png", "图片.png"]


@pytest.mark.parametrize("source", ["quarters.png", "."])
def test_results_are_not_written_over_images(image: Path, tmp_path: Path, source: str) -> None:
    before = image.read_bytes()
    result = run("segment", tmp_path / source, "--out", tmp_path)
    assert (result.exit_code, "choose another --out" in result.stderr) == (1, True)
    assert image.read_bytes() == before


def test_an_empty_folder_is_an_error(image: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    result = run("segment", tmp_path / "empty", image, "--out", tmp_path / "out")
    assert (result.exit_code, len(lines(result))) == (1, 1)
    assert "holds no image that can be read" in result.stderr


@pytest.mark.parametrize("method", ["ncut", "ncut+merge"])
def test_methods_can_be_chosen(image: Path, tmp_path: Path, method: str) -> None:
    result = run("segment", image, "--out", tmp_path / "out", "--method", method, "--model", "classical")
    assert result.exit_code == 0, result.output


def test_a_model_can_be_tried_without_its_weights(image: Path, tmp_path: Path) -> None:
    result = run("segment", image, "--out", tmp_path / "out", "--model", "dino", "--random-weights", "--granularity", 2)
    assert result.exit_code == 0, result.output
    assert lines(result)[0]["segments"] == 2


@pytest.mark.parametrize("method", [[], ["--method", "diffcut"]])
def test_a_diffusion_model_is_taken_from_its_folder(image: Path, tmp_path: Path, method: list[str]) -> None:
    folder = write_folder(tmp_path / "tiny", "sd14")
    result = run("segment", image, "--out", tmp_path / "out", "--model", folder, "--granularity", 3, *method)
    assert result.exit_code == 0, result.output
    assert lines(result)[0]["segments"] == 3


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (["--random-weights"], {}, "the model classical has no weights"),
        (["--model", "dino"], {"HF_HUB_OFFLINE": "1"}, "the weights of dino are not on this machine"),
        (["--model", "sd14"], {"HF_HUB_OFFLINE": "1"}, "the weights of sd14 are not on this machine"),
        ([], {"WALKCUT_DTYPE": "float8"}, "input should be 'float32', 'float16' or 'bfloat16'"),
        (["--granularity", "tiny"], {}, "use auto, coarse"),
        (["--method", "magic"], {}, "magic"),
        (["--model", "magic"], {}, "magic"),
        ([], {"WALKCUT_METHOD": "magic"}, "unknown method 'magic'"),
        ([], {"WALKCUT_DEVICE": "abacus"}, "WALKCUT_DEVICE='abacus' cannot be used here"),
        ([], {"WALKCUT_MAX_PIXELS": "few"}, "WALKCUT_MAX_PIXELS='few' cannot be used"),
    ],
)
def test_unusable_options_are_one_line(
    image: Path, tmp_path: Path, options: list[str], environment: dict[str, str], message: str
) -> None:
    result = run("segment", image, "--out", tmp_path / "out", *options, environment=environment)
    assert result.exit_code != 0
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("argument", ["--help", "--version", "settings"])
def test_only_the_called_command_is_imported(argument: str) -> None:
    code = """
import sys
from walkcut.cli import main
from walkcut.errors import SettingsError
main(sys.argv[1:], standalone_mode=False)
print({"torch", "label_studio_sdk", "numpy", "flask", "sqlalchemy"} & set(sys.modules))
"""
    result = subprocess.run([sys.executable, "-c", code, argument], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "set()"


def test_the_help_lists_all_commands_with_their_summaries() -> None:
    result = run("--help")
    for name in main.list_commands(Context(main)):
        assert re.search(rf"^  {name} +[A-Z]", result.stdout, re.MULTILINE)
        assert run(name, "--help").exit_code == 0
    assert run("grow").exit_code == 2


def test_unknown_variables_are_a_warning() -> None:
    result = run("settings", environment={"WALKCUT_PROT": "1"})
    assert "Warning: WALKCUT_PROT is not a setting: did you mean WALKCUT_PORT?" in result.stderr


def test_a_reader_that_stops_early_is_no_error() -> None:
    with subprocess.Popen([sys.executable, "-m", "walkcut", "presets"], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_settings_are_listed_as_variables_take_them_without_secrets() -> None:
    result = run("settings", environment={"LABEL_STUDIO_API_KEY": "hush", "WALKCUT_PORT": "1234"})
    assert "WALKCUT_LEARNING             true " in result.stdout
    assert "WALKCUT_SYNC_INTERVAL        3600 " in result.stdout
    assert "WALKCUT_PORT                 1234" in result.stdout
    assert "LABEL_STUDIO_API_KEY         (set)" in result.stdout
    assert "hush" not in result.output


def test_serve_closes_the_database_at_sigterm(tmp_path: Path) -> None:
    port = free_port()
    environment = {**os.environ, "WALKCUT_STATE_DIR": str(tmp_path)}
    command = [sys.executable, "-m", "walkcut", "serve", "--port", str(port)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as server:
        wait_for("the server", lambda: is_up(f"http://127.0.0.1:{port}"), 60)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    assert not [*tmp_path.glob("*-wal")]  # the database is closed


def test_serve_puts_the_backend_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, Any] = {}

    def answer_health(app: Any, **options: Any) -> None:
        addresses = [listener.getsockname() for listener in options["sockets"]]
        seen.update(options, addresses=addresses, health=app.test_client().get("/health").status_code)

    monkeypatch.setattr("waitress.serve", answer_health)
    environment = {"WALKCUT_STATE_DIR": str(tmp_path / "state"), "LABEL_STUDIO_URL": "http://ls:8080"}
    port = free_port()
    result = run("serve", "--port", port, environment=environment)
    assert result.exit_code == 0, result.output
    assert seen["health"] == 200
    assert seen["addresses"] == [("127.0.0.1", port)]
    assert seen["max_request_body_size"] == 256_000_000
    assert files(tmp_path / "state") == ["trees", "walkcut.sqlite3"]


def test_serve_takes_the_model_method_and_device_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_backend(settings: Settings, *_: object) -> None:
        raise SettingsError(f"{settings.model} {settings.method} {settings.device}")

    monkeypatch.setattr("walkcut.cli.serve.make_backend", no_backend)
    options = ("--port", free_port(), "--model", "dino", "--method", "ncut", "--device", "cuda:1")
    result = run("serve", *options, environment={"WALKCUT_STATE_DIR": str(tmp_path), "WALKCUT_MODEL": "sd14"})
    assert result.stderr == "Error: dino ncut cuda:1\n"


def test_serve_says_that_its_port_is_taken_before_it_loads_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("walkcut.cli.serve.make_backend", None)  # not reached
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        result = run("serve", "--port", port, environment={"WALKCUT_STATE_DIR": str(tmp_path)})
    expected = f"Error: another program listens on port {port} of 127.0.0.1: end it, or choose another --port\n"
    assert (result.exit_code, result.stderr) == (1, expected)


def test_serve_names_an_address_that_this_machine_does_not_have(tmp_path: Path) -> None:
    result = run("serve", "--host", "192.0.2.1", environment={"WALKCUT_STATE_DIR": str(tmp_path)})
    assert result.exit_code == 1
    assert "cannot listen on port 9090 of 192.0.2.1 (" in result.stderr
    assert "choose another --host or --port" in result.stderr


def test_errors_of_the_system_are_one_line(image: Path) -> None:
    result = run("segment", image, "--out", image / "below")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert "Traceback" not in result.stderr


def test_a_token_without_an_address_is_refused(tmp_path: Path) -> None:
    environment = {"WALKCUT_STATE_DIR": str(tmp_path), "LABEL_STUDIO_API_KEY": "abc"}
    result = run("serve", environment=environment)
    assert result.exit_code == 1
    assert "Error: LABEL_STUDIO_API_KEY is set without LABEL_STUDIO_URL: set both" in result.stderr


@pytest.mark.parametrize("command", ["segment", "prelabel"])
@pytest.mark.parametrize("folder", ["/proc/walkcut", "read_only/out", "file", "file/out"])
def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, folder: str
) -> None:
    mkdir = os.mkdir

    def make(path: str, *arguments: object, **more: object) -> None:  # also for root, who may write everywhere
        if "read_only" in str(path):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        mkdir(path, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "mkdir", make)
    (tmp_path / "file").touch()
    (tmp_path / "a.png").write_bytes(png(quarters(30, 40)))
    out, environment = tmp_path / folder, {"WALKCUT_STATE_DIR": str(tmp_path / "state")}
    result = CliRunner().invoke(main, [command, str(tmp_path / "a.png"), "--out", str(out)], env=environment)
    assert result.exit_code != 0
    assert "Errno" not in result.stderr
    assert str(out.name if folder == "file" else out) in result.stderr
    assert any(word in result.stderr for word in ("choose", "check", "is a file"))
