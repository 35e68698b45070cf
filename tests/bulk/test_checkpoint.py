import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.bulk import done
from walkcut.bulk import jsonl
from walkcut.bulk.checkpoint import (
    ItemFailure,
    open_checkpoint,
    parts_folder,
    read_entries,
    read_fingerprint,
    write_parts,
)
from walkcut.bulk.items import EncodedItem, ItemPrediction
from walkcut.bulk.jsonl import HashSet64
from walkcut.errors import SettingsError

SETTINGS = {"segmenter": "0", "granularities": ["auto"]}
FAILURE = ItemFailure("bad", "/bad.jpg", "decode", "it is no image")


class Keys:
    """A format that lists keys, in as many files as there are keys."""

    name = "keys"

    def encode(self, image: ItemPrediction) -> EncodedItem:
        raise NotImplementedError

    def assemble(self, records: Iterable[Mapping[str, Any]], out: Path) -> None:
        keys = [record["key"] for record in records]
        (out / "keys.txt").write_text(" ".join(keys))
        for number in range(len(keys)):
            (out / f"shard-{number}").touch()


class OneFile(Keys):
    """The same in one file."""

    def assemble(self, records: Iterable[Mapping[str, Any]], out: Path) -> None:
        super().assemble([], out)
        (out / "keys.txt").write_text("all")


def files(out: Path) -> list[str]:
    return sorted(
        path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file() and ".walkcut" not in path.parts
    )


def test_a_run_goes_on_where_it_ended(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        checkpoint.save(done("a", files=write_parts(tmp_path, {"deep/a.png": b"A"})))
        checkpoint.fail(FAILURE)
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        assert (checkpoint.done, checkpoint.failed) == (1, 1)
        assert [checkpoint.is_done(key) for key in ("a", "bad", "b")] == [True, True, False]
    assert (tmp_path / "deep/a.png").read_bytes() == b"A"
    assert json.loads((tmp_path / "failed.jsonl").read_text()) == vars(FAILURE)


def test_a_line_comes_after_its_files(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        with pytest.raises(FileNotFoundError):
            checkpoint.save(done("a", files={"a.png": "never-written"}))
        assert not checkpoint.is_done("a")
    assert list(read_entries(tmp_path)) == []


def test_parts_that_are_not_taken_up_go(tmp_path: Path) -> None:
    parts = parts_folder(tmp_path)
    with open_checkpoint(tmp_path, SETTINGS):
        write_parts(tmp_path, {"a.png": b"A"})
        assert len(list(parts.iterdir())) == 1
    assert not parts.exists()
    parts.mkdir()  # as a killed process leaves it
    (parts / "rest").touch()
    with open_checkpoint(tmp_path, SETTINGS):
        assert list(parts.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be written to .*see that there is room.*goes on from here"):
        write_parts(tmp_path, {"a.png": b"A"})


@pytest.mark.parametrize("cut", [1, 30])
def test_a_line_that_was_cut_off_is_forgotten(tmp_path: Path, cut: int) -> None:
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        checkpoint.save(done("a"))
        checkpoint.save(done("b", {"key": "b", "long": "x" * 200_000}))
    path = tmp_path / ".walkcut" / "done.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        assert [checkpoint.is_done(key) for key in ("a", "b")] == [True, False]
        checkpoint.save(done("b"))
    assert [entry.item.key for entry in read_entries(tmp_path)] == ["a", "b"]


def test_failures_are_tried_again_on_request(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        checkpoint.fail(FAILURE)
    with open_checkpoint(tmp_path, SETTINGS, retry_failed=True) as checkpoint:
        assert not checkpoint.is_done("bad")
        checkpoint.save(done("bad"))
    assert files(tmp_path) == []


def test_no_file_says_that_nothing_failed(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_checkpoint(tmp_path, SETTINGS):
        raise KeyboardInterrupt
    assert files(tmp_path) == []


def test_other_settings_are_refused_with_what_differs(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, SETTINGS):
        pass
    with (
        pytest.raises(SettingsError, match=r"segmenter was 0, now 1.*granularities.*choose another.* with --restart"),
        open_checkpoint(tmp_path, {"segmenter": "1", "granularities": ["auto", "9"]}),
    ):
        pass
    assert read_fingerprint(tmp_path) == SETTINGS


def test_starting_anew_deletes_what_the_run_wrote_and_nothing_else(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        checkpoint.save(done("a", files=write_parts(tmp_path, {"deep/down/a.png": b"A"})))
        checkpoint.fail(FAILURE)
        checkpoint.assemble(Keys())
    (tmp_path / "mine.txt").touch()
    with open_checkpoint(tmp_path, {"segmenter": "1"}, restart=True) as checkpoint:
        assert (checkpoint.done, checkpoint.failed) == (0, 0)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".walkcut"] == ["mine.txt"]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with (
        pytest.raises(SettingsError, match=r"other files, such as holiday.jpg: choose a new or an empty folder"),
        open_checkpoint(tmp_path, SETTINGS, restart=True),
    ):
        pass


def test_one_process_at_a_time(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, SETTINGS):
        with pytest.raises(SettingsError, match="another process is at work"), open_checkpoint(tmp_path, SETTINGS):
            pass
        with pytest.raises(SettingsError, match="another process is at work"):
            list(read_entries(tmp_path))
    with open_checkpoint(tmp_path, SETTINGS):
        pass


def test_what_was_assembled_is_in_the_order_of_keys_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "_SORTED_AT_ONCE", 150)  # two lines
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        for key in ("b/2", "c", "b/10", "a", "b"):
            checkpoint.save(done(key))
        checkpoint.assemble(Keys())
        assert (tmp_path / "keys.txt").read_text() == "a b b/10 b/2 c"
        (tmp_path / ".walkcut" / "assembling").mkdir()  # as a killed process leaves it
        (tmp_path / ".walkcut" / "assembling" / "rest").touch()
        checkpoint.assemble(OneFile())
    assert files(tmp_path) == ["keys.txt"]
    assert (tmp_path / "keys.txt").read_text() == "all"


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no run of `walkcut prelabel`"):
        list(read_entries(tmp_path))


@given(st.lists(st.text(max_size=3)))
def test_digests_are_a_set_of_texts(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_RECENT", 4)
        held, plain = HashSet64(), set[str]()
        for text in texts:
            assert held.add(text) == (text not in plain)
            plain.add(text)
        assert len(held) == len(plain)
        assert all(text in held for text in plain)
        assert "no such text" not in held
