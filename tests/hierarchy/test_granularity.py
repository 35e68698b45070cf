import pytest
from hypothesis import given
from hypothesis import strategies as st

from walkcut.errors import GranularityError
from walkcut.hierarchy.granularity import Granularity, Level, Segments, Threshold, Walk, parse_granularity

granularities = st.one_of(
    st.sampled_from(Level),
    st.integers(1, 999_999).map(Segments),
    st.integers(1, 64).map(Walk),
    st.floats(0, 2).map(lambda tau: Threshold(float(f"{tau:g}"))),
)


@given(granularities)
def test_the_printed_form_is_parsed_back(granularity: Granularity) -> None:
    assert parse_granularity(str(granularity)) == granularity


@pytest.mark.parametrize(
    ("text", "granularity"),
    [
        (" Fine ", Level.FINE),
        ("12", Segments(12)),
        ("n = 12", Segments(12)),
        ("tau=0.4", Threshold(0.4)),
        ("TAU = .4", Threshold(0.4)),
        ("τ=1e-2", Threshold(0.01)),
        ("k=3", Walk(3)),
        ("K = 3", Walk(3)),
    ],
)
def test_written_forms_are_parsed(text: str, granularity: Granularity) -> None:
    assert parse_granularity(text) == granularity


@pytest.mark.parametrize(
    "text", ["", "finest", "-3", "1.5", "12 segments", "tau=", "tau", "n=", "k=", "k=2.5", "٣", "1234567"]
)
def test_the_error_lists_the_accepted_forms(text: str) -> None:
    with pytest.raises(
        GranularityError, match=r"use auto, coarse, medium, fine, a number of segments.* tau=0\.4.* k=3"
    ):
        parse_granularity(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "at least 1 segment, not 0"),
        ("tau=-1", "must be 0 or more, not -1"),
        ("tau=1e999", "not inf"),
        ("tau=1.2.3", "no"),
        ("k=0", "1 to 64 steps, not 0"),
        ("k=65", "1 to 64 steps, not 65"),
    ],
)
def test_numbers_out_of_range_are_refused(text: str, message: str) -> None:
    with pytest.raises(GranularityError, match=message):
        parse_granularity(text)
