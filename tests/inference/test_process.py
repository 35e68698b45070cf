import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
from multiprocessing import set_forkserver_preload
from walkcut.inference.process import start_context

if __name__ == "__main__":
    set_forkserver_preload(["marker"])
    process = start_context().Process(target=print)
    process.start()
    process.join()
"""


@pytest.mark.skipif(sys.platform == "win32" or sys.version_info < (3, 11), reason="needs a fork server and safe paths")
def test_modules_in_the_working_folder_are_not_imported(tmp_path: Path) -> None:
    """A file such as `http.py` beside somebody's images would take the place of Python's own."""
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "marker.py").write_text("open('imported', 'w').close()")
    (tmp_path / "script.py").write_text(SCRIPT)
    subprocess.run([sys.executable, tmp_path / "script.py"], cwd=tmp_path / "images", check=True, timeout=60)
    assert not (tmp_path / "images" / "imported").exists()
