"""Fuzz tests of parsers: arbitrary and mutated input must give a value or a documented error."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

NUMBER = st.integers() | st.floats() | st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**400, 1e308])
JSON = st.recursive(
    st.none() | st.booleans() | NUMBER | st.text(st.characters(), max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
)


@dataclass(frozen=True)
class Parser:
    """A parser, its inputs, and the errors that it documents."""

    name: str
    parse: Callable[[Any], object]
    inputs: st.SearchStrategy[Any]
    errors: tuple[type[Exception], ...] = ()
    examples: int = 200

    def check(self, value: Any) -> None:
        with suppress(*self.errors):
            self.parse(value)

    def fuzz(self) -> None:
        self._fuzz(settings(max_examples=self.examples, suppress_health_check=list(HealthCheck)))

    def fuzz_at_length(self) -> None:
        examples = 50 * self.examples
        self._fuzz(settings(max_examples=examples, derandomize=False, suppress_health_check=list(HealthCheck)))

    def _fuzz(self, profile: settings) -> None:
        profile(given(self.inputs)(self.check))()

    def __str__(self) -> str:
        return self.name


def fuzz_tests(parsers: Sequence[Parser]) -> tuple[Callable[[Parser], None], Callable[[Parser], None]]:
    """Return two tests, a short one and a soak test: each parser gives a value or a documented error."""

    @pytest.mark.filterwarnings("ignore")  # libraries warn of much that is damaged
    @pytest.mark.parametrize("parser", parsers, ids=str)
    def fuzz(parser: Parser) -> None:
        parser.fuzz()

    @pytest.mark.soak
    @pytest.mark.filterwarnings("ignore")
    @pytest.mark.parametrize("parser", parsers, ids=str)
    def fuzz_at_length(parser: Parser) -> None:
        parser.fuzz_at_length()

    return fuzz, fuzz_at_length


@st.composite
def mutated(draw: st.DrawFn, samples: Sequence[bytes]) -> bytes:
    """Draw a sample with bytes changed, pieces removed, repeated or taken from another sample, or its end cut off."""
    data = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 6))):
        start, stop = sorted(round(draw(st.floats(0, 1)) * len(data)) for _ in range(2))
        match draw(st.sampled_from(["change", "flip", "cut", "repeat", "splice", "end"])):
            case "change":
                data[start : start + 8] = draw(st.binary(max_size=8))
            case "flip" if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del data[start : min(stop, start + 64)]
            case "repeat":
                data[start:start] = data[start:stop][:256] * draw(st.integers(1, 4))
            case "splice":
                data[start:stop] = draw(st.sampled_from(samples))[start:stop]
            case "end":
                del data[stop:]
    return bytes(data)


def as_text(data: bytes) -> str:
    return data.decode(errors="surrogateescape")
