import json
import logging
import subprocess
import sys

import pytest

from walkcut.telemetry.logs import formatter, log_context

SCRIPT = """
import logging
from walkcut.telemetry.logs import log_context, set_up_logging
set_up_logging("INFO", "json")
logging.getLogger("httpx").info("GET http://ls")
with log_context(request_id="r"):
    logging.getLogger("walkcut").info("done")
logging.getLogger("walkcut").debug("detail")
"""


def line(log_format: str, message: str, *arguments: object) -> str:
    return formatter(log_format).format(
        logging.LogRecord("walkcut.here", logging.WARNING, "", 0, message, arguments, None)
    )


def test_lines_end_with_the_context() -> None:
    with log_context(request_id="r1", endpoint="predict"):
        with log_context(task=7):
            assert line("text", "no %s", "image").endswith(
                " WARNING walkcut.here: no image [request_id r1] [endpoint predict] [task 7]"
            )
        assert line("text", "on").endswith(": on [request_id r1] [endpoint predict]")
    assert line("text", "on").endswith(": on")


def test_json_lines_have_the_context_as_fields() -> None:
    with log_context(request_id="r1", task=7):
        fields = json.loads(line("json", "no %s", 'image "a"\n'))
    assert fields.pop("asctime")
    expected = {"levelname": "WARNING", "name": "walkcut.here", "message": 'no image "a"\n'}
    assert fields == {**expected, "request_id": "r1", "task": 7}


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_errors_come_with_their_traceback(log_format: str) -> None:
    error = ZeroDivisionError("by the test")
    record = logging.LogRecord("walkcut", logging.ERROR, "", 0, "a bug", (), (type(error), error, None))
    text = formatter(log_format).format(record)
    assert "ZeroDivisionError: by the test" in text
    assert log_format == "text" or json.loads(text)["message"] == "a bug"


def test_lines_from_a_level_on_go_to_stderr() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    (only,) = done.stderr.splitlines()
    assert json.loads(only)["message"] == "done"
    assert not done.stdout
