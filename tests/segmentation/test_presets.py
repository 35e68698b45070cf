"""Presets by name."""

import pytest

from walkcut.errors import SettingsError
from walkcut.segmentation.presets import PAPER_PRESETS, PRESETS, describe, find_preset


@pytest.mark.parametrize("name", [*PRESETS, *PAPER_PRESETS])
def test_every_preset_is_found_by_its_name(name: str) -> None:
    assert find_preset(name).name == name


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(
        SettingsError, match=r"unknown method 'magic': choose one of merge, ncut.*`walkcut presets` lists"
    ):
        find_preset("magic")


def test_preset_names_are_unique() -> None:
    assert not PAPER_PRESETS.keys() & PRESETS.keys()
    assert len(PAPER_PRESETS) == 45


def test_steps_of_ddim_have_their_timesteps() -> None:
    inverted, plain = (PAPER_PRESETS[f"dwc-table7-{row}"].attention for row in ("step-40", "no-inversion"))
    assert inverted is not None
    assert plain is not None
    assert (inverted.timestep, inverted.ddim_inversion) == (181, True)
    assert (plain.timestep, plain.ddim_inversion) == (181, False)


def test_a_preset_is_described_in_one_line() -> None:
    assert describe(PAPER_PRESETS["dwc-table5-dwc-pamr"]) == (
        "NCut(affinity='dot', walk_steps=1, rule=ManC(), max_leaves=None, thresholds=None); "
        "decoder layers at levels 16 32 64, timestep 181, DDIM inversion; PAMR"
    )
