import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walkcut.bulk import jsonl
from walkcut.bulk.jsonl import HashSet64, append_line, external_sort, keys


@given(st.lists(st.text(max_size=3)))
def test_a_hash_set_is_a_set_of_texts(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "_MAX_RECENT", 4)
        hashed, expected = HashSet64(), set[str]()
        for text in texts:
            assert hashed.add(text) == (text not in expected)
            expected.add(text)
        assert len(hashed) == len(expected)
        assert all(text in hashed for text in expected)
        assert "not in the set" not in hashed


@given(st.lists(st.text(st.characters()), max_size=5))
def test_keys_of_any_characters_are_read_back_and_sorted(texts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        path, sorting = Path(name, "lines"), Path(name, "sorting")
        sorting.mkdir()
        with path.open("wb") as file:
            for text in texts:
                append_line(file, {"key": text, "rest": '"'})
        assert list(keys(path)) == texts
        lines = list(external_sort(path, sorting))
        assert sorted(json.loads(line)["key"] for line in lines) == sorted(texts)
        assert lines == sorted(lines)
