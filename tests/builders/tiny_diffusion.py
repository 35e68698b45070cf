"""Diffusion models of every family with few channels, and folders of their weights."""

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from walkcut.backbones import ImageFeatures
from walkcut.backbones.configs import DIFFCUT, DWC, AttentionConfig
from walkcut.backbones.diffusion import DiffusionBackbone
from walkcut.backbones.diffusion_model import DiffusionModel, random_model
from walkcut.backbones.weights import ARCHITECTURES, Architecture

FAMILIES = tuple(ARCHITECTURES)
CPU = torch.device("cpu")
FEATURES = replace(DIFFCUT, patches=4)  # along the 128 pixels of a tiny model
_TEXT: Mapping[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}


def tiny_architecture(family: str) -> Architecture:
    """The blocks of the family with 8 or 16 channels, for squares of 128 pixels."""
    full = ARCHITECTURES[family]
    depths = len(full.unet.get("block_out_channels", (320, 640, 1280, 1280)))
    unet = {
        **full.unet,
        "sample_size": 16,
        "block_out_channels": (8, *(16,) * (depths - 1)),
        "attention_head_dim": 2,
        "cross_attention_dim": 16 if "addition_embed_type" in full.unet else 8,
        "norm_num_groups": 4,
    }
    if "addition_embed_type" in unet:
        unet |= {"addition_time_embed_dim": 4, "projection_class_embeddings_input_dim": 32}
    small = {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
    return replace(full, unet=unet, autoencoder={**full.autoencoder, **small})


def tiny_model(family: str, *, dtype: torch.dtype = torch.float32, device: torch.device = CPU) -> DiffusionModel:
    """The family's tiny model."""
    return random_model(family, tiny_architecture(family), dtype=dtype, device=device)


def backbone_on(model: DiffusionModel, attention: AttentionConfig = DWC) -> DiffusionBackbone:
    """The backbone on a tiny model, which runs all images at about 128² pixels."""
    return DiffusionBackbone(model, attention, FEATURES)


def tiny_backbone(family: str, attention: AttentionConfig = DWC) -> DiffusionBackbone:
    """The backbone on the family's tiny model."""
    return backbone_on(tiny_model(family), attention)


def largest_difference(first: ImageFeatures, second: ImageFeatures) -> float:
    """The largest absolute difference between their attention maps and feature maps."""
    differences = []
    if first.feature_map is not None or second.feature_map is not None:
        assert first.feature_map is not None
        assert second.feature_map is not None
        differences.append(first.feature_map - second.feature_map)
    pairs = zip(first.attention_maps, second.attention_maps, strict=True)
    differences += [one.weights - two.weights for one, two in pairs]
    return max(float(difference.abs().max()) for difference in differences)


def write_folder(folder: Path, family: str) -> Path:
    """A diffusers folder of the family's tiny model."""
    architecture = tiny_architecture(family)
    torch.manual_seed(1)
    UNet2DConditionModel(**architecture.unet).save_pretrained(folder / "unet")
    AutoencoderKL(**architecture.autoencoder).save_pretrained(folder / "vae")
    noise = {**architecture.noise, "steps_offset": 1, "clip_sample": False, "skip_prk_steps": True}
    _write_json(folder / "scheduler" / "scheduler_config.json", noise)
    xl = "addition_embed_type" in architecture.unet
    index = {"scheduler": ["diffusers", "PNDMScheduler"], "unet": ["diffusers", "UNet2DConditionModel"]}
    index |= {"vae": ["diffusers", "AutoencoderKL"]}
    encoders: dict[str, Any] = {"": CLIPTextModel, "_2": CLIPTextModelWithProjection} if xl else {"": CLIPTextModel}
    for suffix, encoder in encoders.items():
        index |= {f"tokenizer{suffix}": ["transformers", "CLIPTokenizer"]}
        index |= {f"text_encoder{suffix}": ["transformers", encoder.__name__]}
        config = CLIPTextConfig(**_TEXT, vocab_size=4, projection_dim=8, bos_token_id=0, eos_token_id=1)
        encoder(config).save_pretrained(folder / f"text_encoder{suffix}")
        vocabulary = {"<|startoftext|>": 0, "<|endoftext|>": 1, "a": 2, "a</w>": 3}
        special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "a</w>"}
        tokenizer = folder / f"tokenizer{suffix}"
        _write_json(tokenizer / "vocab.json", vocabulary)
        _write_json(tokenizer / "special_tokens_map.json", special)
        _write_json(tokenizer / "tokenizer_config.json", {"model_max_length": 77, **special})
        (tokenizer / "merges.txt").write_text("#version: 0.2\n")
    pipeline = "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"
    _write_json(folder / "model_index.json", {"_class_name": pipeline, "_diffusers_version": "0.32.0", **index})
    return folder


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
