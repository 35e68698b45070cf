"""Recipes by name."""

import pytest

from walkcut.errors import SettingsError
from walkcut.segmentation.presets import PUBLISHED, RECIPES, describe, read_recipe


@pytest.mark.parametrize("name", [*RECIPES, *PUBLISHED])
def test_every_recipe_is_found_by_its_name(name: str) -> None:
    assert read_recipe(name).name == name


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"no method 'magic': choose one of merge, ncut.*`walkcut recipes` lists"):
        read_recipe("magic")


def test_no_two_published_recipes_are_one() -> None:
    assert not PUBLISHED.keys() & RECIPES.keys()
    assert len(PUBLISHED) == 45


def test_a_step_of_ddim_is_its_timestep() -> None:
    inverted, plain = (PUBLISHED[f"dwc-table7-{row}"].attention for row in ("step-40", "no-inversion"))
    assert inverted is not None
    assert plain is not None
    assert (inverted.timestep, inverted.inverted) == (181, True)
    assert (plain.timestep, plain.inverted) == (181, False)


def test_a_recipe_is_told_in_a_line() -> None:
    assert describe(PUBLISHED["dwc-table5-dwc-pamr"]) == (
        "NCut(affinity='dot', walk_steps=1, rule=ManC(), max_leaves=None, thresholds=None); "
        "decoder layers at levels 16 32 64, timestep 181, DDIM inversion; PAMR"
    )
