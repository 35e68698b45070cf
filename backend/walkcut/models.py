"""Names of the models, and which of them `auto` is."""

from pathlib import Path

from platformdirs import user_data_path

AUTO = "auto"
CLASSICAL = "classical"
DINO = "dino"
HED = "hed"
MODELS = (AUTO, CLASSICAL, HED, "sd14", "sd15", "sd21", "ssd1b", "sdxl", DINO)


def hed_file(folder: Path | None = None) -> Path:
    """Return where the weights of hed are, or would be: in a folder, by default in the user's data folder."""
    return (folder or user_data_path("walkcut") / "weights") / "hed.safetensors"


def choose_model(name: str, folder: Path | None = None) -> str:
    """Return the model of this name; for `auto` that is hed if its weights have been fetched, else classical.

    >>> choose_model("dino")
    'dino'
    """
    if name != AUTO:
        return name
    return HED if hed_file(folder).is_file() else CLASSICAL
