"""The clock is set, by years, both ways: nothing that walkcut does depends on what time it is."""

from pathlib import Path

import pytest

from tests.faults.backend import IMAGE, running


def test_the_clock_jumps_both_ways(folder: Path) -> None:
    libraries = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    if not libraries:
        pytest.skip("no libfaketime (Debian's package faketime): tests of units move the clock by hand")
    clock = folder / "clock"
    clock.write_text("+0")
    with running(
        folder,
        LD_PRELOAD=str(libraries[0]),
        FAKETIME_TIMESTAMP_FILE=str(clock),
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
    ) as backend:
        answers = []
        for number, jump in enumerate(("+0", "+3650d", "-3650d", "+0"), 1):
            clock.write_text(jump)
            (answer,) = backend.predict(IMAGE, line="3")
            answers.append([item["value"].get("rle") for item in answer["result"]])  # labels may be learned meanwhile
            assert backend.submit(number).ok
            backend.learns(*range(1, number + 1))
        assert answers[0]
        assert answers == answers[:1] * 4
        assert backend.stored()[1] == {1, 2, 3, 4}
        assert "Traceback" not in backend.log
