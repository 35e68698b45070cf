import pytest
from hypothesis import given
from hypothesis import strategies as st

from walkcut.bulk import jsonl
from walkcut.bulk.jsonl import HashSet64


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
