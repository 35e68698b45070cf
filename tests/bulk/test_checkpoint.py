import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.builders.bulk import FAILURE, make_result
from walkcut.bulk import jsonl
from walkcut.bulk.checkpoint import STAGING, open_checkpoint, read_entries, read_run_settings, stage_files
from walkcut.bulk.items import EncodedItem, Item, ItemPrediction, ItemResult, Skipped
from walkcut.errors import SettingsError

SETTINGS = {"segmenter": "0", "granularities": ["auto"]}


class KeysFormat:
    """Lists keys, and makes a file for each."""

    name: ClassVar[str] = "keys"

    def encode(self, image: ItemPrediction) -> EncodedItem:
        raise NotImplementedError

    def assemble(self, records: Iterable[Mapping[str, Any]], output_dir: Path) -> None:
        keys = [record["key"] for record in records]
        (output_dir / "keys.txt").write_text(" ".join(keys))
        for index in range(len(keys)):
            (output_dir / f"shard-{index}").touch()


class OneFileFormat(KeysFormat):
    """Makes one file."""

    def assemble(self, records: Iterable[Mapping[str, Any]], output_dir: Path) -> None:
        super().assemble([], output_dir)
        (output_dir / "keys.txt").write_text("all")


def files(run_dir: Path) -> list[str]:
    return sorted(
        path.relative_to(run_dir).as_posix()
        for path in run_dir.rglob("*")
        if path.is_file() and ".walkcut" not in path.parts
    )


def test_a_run_continues_where_it_ended(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        checkpoint.save(make_result("a", files=stage_files(tmp_path, {"deep/a.png": b"A"})))
        checkpoint.fail(FAILURE)
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        assert (checkpoint.done, checkpoint.failed) == (1, 1)
        assert [checkpoint.is_done(key) for key in ("a", "bad", "b")] == [True, True, False]
    assert (tmp_path / "deep/a.png").read_bytes() == b"A"
    assert json.loads((tmp_path / "failed.jsonl").read_text()) == vars(FAILURE)


def test_a_line_comes_after_its_files(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        with pytest.raises(FileNotFoundError):
            checkpoint.save(make_result("a", files={"a.png": "never-staged_contents"}))
        assert not checkpoint.is_done("a")
    assert list(read_entries(tmp_path)) == []


def test_files_that_were_not_saved_are_deleted(tmp_path: Path) -> None:
    staged = tmp_path / STAGING
    with open_checkpoint(tmp_path, SETTINGS):
        stage_files(tmp_path, {"a.png": b"A"})
        assert len(list(staged.iterdir())) == 1
    assert not staged.exists()
    staged.mkdir()  # leftovers of a killed process
    (staged / "rest").touch()
    with open_checkpoint(tmp_path, SETTINGS):
        assert list(staged.iterdir()) == []


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"cannot be written to .*free disk space.*continues from here"):
        stage_files(tmp_path, {"a.png": b"A"})


@pytest.mark.parametrize("cut", [1, 30])
def test_a_partial_line_is_dropped(tmp_path: Path, cut: int) -> None:
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        checkpoint.save(make_result("a"))
        checkpoint.save(make_result("b", {"key": "b", "long": "x" * 200_000}))
    path = tmp_path / ".walkcut" / "done.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        assert [checkpoint.is_done(key) for key in ("a", "b")] == [True, False]
        checkpoint.save(make_result("b"))
    assert [entry.item.key for entry in read_entries(tmp_path)] == ["a", "b"]


def test_failures_are_tried_again_on_request(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        checkpoint.fail(FAILURE)
    with open_checkpoint(tmp_path, SETTINGS, retry_failed=True) as checkpoint:
        assert not checkpoint.is_done("bad")
        checkpoint.save(make_result("bad"))
    assert files(tmp_path) == []


def test_without_failures_there_is_no_file_of_them(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_checkpoint(tmp_path, SETTINGS):
        raise KeyboardInterrupt
    assert files(tmp_path) == []


def test_other_settings_are_refused_with_their_differences(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, SETTINGS):
        pass
    with (
        pytest.raises(SettingsError, match=r"segmenter was 0, now 1.*granularities.*choose another.* pass --restart"),
        open_checkpoint(tmp_path, {"segmenter": "1", "granularities": ["auto", "9"]}),
    ):
        pass
    assert read_run_settings(tmp_path) == SETTINGS


def test_a_restart_deletes_the_files_of_the_run_only(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        checkpoint.save(make_result("a", files=stage_files(tmp_path, {"deep/down/a.png": b"A"})))
        checkpoint.fail(FAILURE)
        checkpoint.assemble(KeysFormat())
    (tmp_path / "mine.txt").touch()
    with open_checkpoint(tmp_path, {"segmenter": "1"}, restart=True) as checkpoint:
        assert (checkpoint.done, checkpoint.failed) == (0, 0)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".walkcut"] == ["mine.txt"]


@pytest.mark.parametrize("has_links", [True, False])
def test_files_may_be_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_links: bool) -> None:
    image, out = tmp_path / "图 (1).png", tmp_path / "out"
    image.write_bytes(b"A")
    if not has_links:
        monkeypatch.setattr(os, "symlink", refuse_link)
    with open_checkpoint(out, SETTINGS) as checkpoint:
        checkpoint.save(make_result("a", files=stage_files(out, {"images/图.png": image})))
    assert (out / "images" / "图.png").read_bytes() == b"A"
    assert (out / "images" / "图.png").is_symlink() == has_links
    with open_checkpoint(out, SETTINGS, restart=True):
        assert not (out / "images").exists()
    assert image.exists()


def refuse_link(*_: object, **__: object) -> None:
    raise PermissionError("no links here")


def test_keys_and_names_of_any_characters_are_read_back(tmp_path: Path) -> None:
    image = Item('caf\udce9 "图" \\n\n', "/x", {"image": "/x"}, name="a/图.png")
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        checkpoint.save(ItemResult(image, {}, {}, "t", 0, {}))
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        assert checkpoint.is_done(image.key)
    assert [entry.item for entry in read_entries(tmp_path)] == [image]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "holiday.jpg").touch()
    with (
        pytest.raises(SettingsError, match=r"other files, such as holiday.jpg: choose a new or an empty folder"),
        open_checkpoint(tmp_path, SETTINGS, restart=True),
    ):
        pass


def test_a_run_is_open_in_one_process_at_a_time(tmp_path: Path) -> None:
    with open_checkpoint(tmp_path, SETTINGS):
        with pytest.raises(SettingsError, match="another process is using"), open_checkpoint(tmp_path, SETTINGS):
            pass
        with pytest.raises(SettingsError, match="another process is using"):
            list(read_entries(tmp_path))
    with open_checkpoint(tmp_path, SETTINGS):
        pass


def test_assembled_files_are_in_the_order_of_keys_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "_SORT_BYTES", 150)  # two lines
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        for key in ("b/2", "c", "b/10", "a", "b"):
            checkpoint.save(make_result(key))
        checkpoint.assemble(KeysFormat())
        assert (tmp_path / "keys.txt").read_text() == "a b b/10 b/2 c"
        (tmp_path / ".walkcut" / "assembling").mkdir()  # leftovers of a killed process
        (tmp_path / ".walkcut" / "assembling" / "rest").touch()
        checkpoint.assemble(OneFileFormat())
    assert files(tmp_path) == ["keys.txt"]
    assert (tmp_path / "keys.txt").read_text() == "all"


def test_a_folder_without_a_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="holds no run of `walkcut prelabel`"):
        list(read_entries(tmp_path))


def stamped(key: str, stamp: str) -> ItemResult:
    return replace(make_result(key), item=Item(key, f"/{key}.jpg", stamp=stamp))


def test_changed_images_are_told_by_their_stamps(tmp_path: Path) -> None:
    now = {"same": "1", "changed": "2", "unknown then": "1", "unknown now": "", "new": "1"}
    then = {"same": "1", "changed": "1", "unknown then": "", "unknown now": "1"}
    for _ in range(2):
        with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
            for key, stamp in then.items():
                if not checkpoint.is_done(key):
                    checkpoint.save(stamped(key, stamp))
            changed = [key for key, stamp in now.items() if checkpoint.has_changed(Item(key, "", stamp=stamp))]
            assert changed == ["changed"]


def test_results_of_changed_images_are_deleted(tmp_path: Path) -> None:
    names = {"same": "1", "changed": "1", "web": "?1"}
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        for key, stamp in names.items():
            result = replace(stamped(key, stamp), files=stage_files(tmp_path, {f"{key}.png": b"x"}))
            checkpoint.save(result)
    listed = [Item("same", "", stamp="1"), Item("changed", "", stamp="2"), Item("web", "", stamp="?1"), Item("new", "")]
    with open_checkpoint(tmp_path, SETTINGS, relisted=lambda: listed) as checkpoint:
        assert [checkpoint.is_done(key) for key in ("same", "changed", "web")] == [True, False, False]
        checkpoint.save(stamped("changed", "2"))
    assert files(tmp_path) == ["same.png"]
    assert [entry.item.key for entry in read_entries(tmp_path)] == ["changed", "same"]


def test_what_is_skipped_is_counted_and_listed_for_the_last_run(tmp_path: Path) -> None:
    for count in (5, 2):
        with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
            if count == 5:
                checkpoint.save(make_result("done"))
            for index in range(count):
                checkpoint.skip(Skipped(f"/{index}.txt", "no image"))
            checkpoint.skip(Skipped("tasks", "annotated", count=40))
            checkpoint.skip(Skipped("done", "predicted", "done"))
        counted = checkpoint.skipped
        assert {reason: skipped.count for reason, skipped in counted.items()} == {"no image": count, "annotated": 40}
        assert counted["no image"].examples == [f"/{index}.txt" for index in range(min(count, 3))]
        assert len((tmp_path / "skipped.jsonl").read_text().splitlines()) == count + 1


def test_announced_images_are_kept_until_they_are_saved(tmp_path: Path) -> None:
    results = [stamped(key, "1") for key in ("a", "b")]
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        checkpoint.announce(results)
        checkpoint.save(results[0])
    with open_checkpoint(tmp_path, SETTINGS) as checkpoint:
        assert [result.item for result in checkpoint.announced()] == [results[1].item]
        checkpoint.save(next(checkpoint.announced()))
        assert list(checkpoint.announced()) == []


def test_files_are_named_in_full_and_secrets_are_not(tmp_path: Path) -> None:
    """A question mark, a colon and an @ are parts of the names of files."""
    paths = [str(tmp_path / name) for name in ("in", "q?1.png", "h#1.png", "a:b@c.png")]
    for path in paths:
        Path(path).touch()
    absent = str(tmp_path / "gone?token=geheim")
    with open_checkpoint(tmp_path / "out", SETTINGS) as checkpoint:
        for index, reference in enumerate([*paths, absent, "https://e.org/a.png?token=geheim"]):
            checkpoint.fail(replace(FAILURE, key=str(index), reference=reference))
    rows = [json.loads(line)["reference"] for line in (tmp_path / "out" / "failed.jsonl").read_text().splitlines()]
    assert rows == [*paths, f"{tmp_path}/gone?…", "https://e.org/a.png?…"]
