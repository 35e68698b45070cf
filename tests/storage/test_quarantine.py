import os
from pathlib import Path

import pytest

from walkcut.errors import QuarantineError
from walkcut.storage.quarantine import Quarantine


def test_a_quarantined_image_is_refused_with_the_reason_and_the_remedy(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "in" / "deep")
    quarantine.check("abc", "v1")
    message = str(quarantine.add("abc", "v1", "the process ended"))
    with pytest.raises(QuarantineError, match=r"the process ended, more than once\): scale it down.*delete") as refused:
        Quarantine(tmp_path / "in" / "deep").check("abc", "v1")
    assert str(refused.value) == message
    assert len(quarantine) == 1
    Path(message.rpartition(" ")[2]).unlink()
    quarantine.check("abc", "v1")


def test_another_image_or_segmenter_is_not_refused(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path)
    quarantine.add("abc", "v1", "it hung")
    quarantine.check("abd", "v1")
    quarantine.check("abc", "v2")


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"\xff"])
def test_a_damaged_file_counts(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "abc-v1.json").write_bytes(content)
    with pytest.raises(QuarantineError, match="the model's process ended"):
        Quarantine(tmp_path).check("abc", "v1")


def test_the_oldest_files_beyond_the_limit_are_deleted(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path, max_files=2)
    for age, name in enumerate(("one", "two", "three")):
        quarantine.add(name, "v1", "it hung")
        os.utime(tmp_path / f"{name}-v1.json", (age, age))
    quarantine.add("four", "v1", "it hung")
    assert {file.name for file in tmp_path.iterdir()} == {"three-v1.json", "four-v1.json"}


def test_a_folder_that_cannot_be_written_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    Quarantine(tmp_path / "file").add("abc", "v1", "it hung")
    assert "the image abc was not put into quarantine" in caplog.text
