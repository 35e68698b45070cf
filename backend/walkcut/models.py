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
    """Return the model of this name; for `auto`, by itself or in a pair, that is hed if fetched, else classical.

    >>> choose_model("dino")
    'dino'
    """
    if name.startswith(f"{AUTO}+"):
        return choose_model(AUTO, folder) + name.removeprefix(AUTO)
    if name != AUTO:
        return name
    return HED if hed_file(folder).is_file() else CLASSICAL


def split_pair(name: str) -> tuple[str, str] | None:
    """Return the models of a pair, of which the first gives contours and the second features; `None` for other names.

    >>> split_pair("hed+dino")
    ('hed', 'dino')
    """
    if Path(name).expanduser().exists():
        return None
    ends = (end for end, character in enumerate(name) if character == "+")
    pairs = ((name[:end], name[end + 1 :]) for end in ends)
    return next((pair for pair in pairs if pair[0] in MODELS or is_onnx(pair[0])), None)


def is_onnx(name: str) -> bool:
    """Return whether a model is a network in a file, not a pair.

    >>> is_onnx("edges.onnx")
    True
    """
    return name.lower().endswith(".onnx") and split_pair(name) is None
