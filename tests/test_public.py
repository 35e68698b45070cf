import types

import walkcut


def test_the_public_names_are_those_that_are_promised() -> None:
    public = {name for name, value in vars(walkcut).items() if not name.startswith("_")}
    submodules = {name for name in public if isinstance(getattr(walkcut, name), types.ModuleType)}
    assert public - submodules | {"brush"} == set(walkcut.__all__)
