"""Diffusion models: their networks, their noise schedule and the empty prompt."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMInverseScheduler, UNet2DConditionModel
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from walkcut.backbones.attention_hooks import self_attention_layers
from walkcut.backbones.oom_fallback import normalise_oom_errors
from walkcut.backbones.resize import resize
from walkcut.backbones.weights import Architecture, find_weights, load_network, read_config, weights_digest
from walkcut.errors import SettingsError

_log = logging.getLogger(__name__)

_CPU = torch.device("cpu")
_SEED = 0  # of random weights
_QUERY_SCALE = 3.0  # of a random model, whose attention is then cut about as often as a trained one's
_TOKENS = 77  # of every prompt
_DDIM_STEPS = 50


@dataclass(frozen=True)
class PromptEmbedding:
    """Text embedding of a prompt: a vector per token, and for SDXL one for the whole prompt."""

    tokens: Float[Tensor, "1 t c"]
    pooled: Float[Tensor, "1 d"] | None = None


@dataclass(frozen=True, eq=False)
class DiffusionModel:
    """Networks of a latent diffusion model, for one caller at a time.

    They are kept on `device` and for inference only, the U-Net in `dtype`; the autoencoder, whose activations overflow
    in float16, and all latents are in float32.
    """

    version: str
    unet: UNet2DConditionModel
    autoencoder: AutoencoderKL
    schedule: DDIMInverseScheduler
    prompt: PromptEmbedding
    device: torch.device
    dtype: torch.dtype

    def __post_init__(self) -> None:
        self.autoencoder.decoder = nn.Identity()
        for network in (self.unet, self.autoencoder):
            network.eval().requires_grad_(requires_grad=False)
        self.restore_device()

    @property
    def patch(self) -> int:
        """Side, in pixels, of the square that one cell of the latent covers."""
        return int(2 ** (len(self.autoencoder.config.block_out_channels) - 1))

    @property
    def native_side(self) -> int:
        """Side, in pixels, of the square images that the model was trained on."""
        return int(self.unet.config.sample_size) * self.patch

    @property
    def multiple(self) -> int:
        """Number that the sides of an image, in pixels, must be multiples of for the grids of all levels to fit."""
        return int(self.patch * 2 ** (len(self.unet.down_blocks) - 1))

    def restore_device(self) -> None:
        """Move the networks back to their device and precision."""
        self._move(self.device, self.dtype)

    @contextmanager
    def offload_to_cpu(self) -> Iterator[None]:
        """Hold the networks on the CPU in float32; they stay there if their device has no memory left for them."""
        try:
            self._move(_CPU, torch.float32)
            yield
        finally:
            try:
                with normalise_oom_errors():
                    self.restore_device()
            except torch.OutOfMemoryError:
                _log.warning("%s stays on the CPU until %s has memory for it", self.version, self.device)
                self._move(_CPU, torch.float32)

    def _move(self, device: torch.device, dtype: torch.dtype) -> None:
        # Not diffusers' own `to`, which warns about layers to be kept in float32 although there are none.
        nn.Module.to(self.unet, device, dtype)
        nn.Module.to(self.autoencoder, device)

    def encode(self, images: Sequence[UInt8[Tensor, "_ _ 3"]], size: tuple[int, int]) -> Float[Tensor, "b 4 h w"]:
        """Return the latents of images resized to `size` (height, width): the scaled mean of the posterior."""
        resized = [resize(image.to(self.autoencoder.device), size, white=255) for image in images]
        mean = self.autoencoder.encode(torch.cat(resized) / 127.5 - 1).latent_dist.mean
        return mean * self.autoencoder.config.scaling_factor

    def predict(self, latents: Float[Tensor, "b 4 h w"], timestep: int) -> Float[Tensor, "b 4 h w"]:
        """Run the U-Net once with the empty prompt."""
        count, dtype = len(latents), self.unet.dtype
        conditions = None
        if self.prompt.pooled is not None:
            sides = [side * self.patch for side in latents.shape[2:]]
            # SDXL takes the original size, the corner of the crop, and the target size.
            time_ids = torch.tensor([[*sides, 0, 0, *sides]], dtype=torch.float32, device=latents.device)
            pooled = self.prompt.pooled.to(latents.device, dtype)
            conditions = {"text_embeds": pooled.expand(count, -1), "time_ids": time_ids.expand(count, -1)}
        tokens = self.prompt.tokens.to(latents.device, dtype).expand(count, -1, -1)
        output = self.unet(latents.to(dtype), timestep, tokens, added_cond_kwargs=conditions, return_dict=False)
        return output[0].float()

    def invert(self, latents: Float[Tensor, "b 4 h w"], timestep: int) -> Float[Tensor, "b 4 h w"]:
        """Return the latents after DDIM inversion by 50-step DDIM, up to the last of its steps within `timestep`.

        Song et al. 2021, Eq. 12, run backwards (Dhariwal & Nichol 2021, appendix F).
        """
        for step in self.schedule.timesteps.tolist():
            if step > timestep:
                break
            latents = self.schedule.step(self.predict(latents, step), step, latents, return_dict=False)[0]
        return latents

    def add_noise(self, latents: Float[Tensor, "b 4 h w"], timestep: int, seed: int) -> Float[Tensor, "b 4 h w"]:
        """Return `√ᾱ_t z + √(1 − ᾱ_t) ε` (Ho et al. 2020, Eq. 4) with the same `ε` for all latents of a size."""
        generator = torch.Generator().manual_seed(seed)  # on the CPU: the same noise for every device
        noise = torch.randn(1, *latents.shape[1:], generator=generator).to(latents.device)
        kept = float(self.schedule.alphas_cumprod[timestep])
        return kept**0.5 * latents + (1 - kept) ** 0.5 * noise


def load_model(name: str, *, weights: Path | None, dtype: torch.dtype, device: torch.device) -> DiffusionModel:
    """Return the model of this name, without its text encoder; see `find_weights`. Raises `SettingsError`."""
    folder = find_weights(name, weights)
    unet = load_network(UNet2DConditionModel.from_pretrained, folder, "unet", "diffusion_pytorch_model")
    autoencoder = load_network(AutoencoderKL.from_pretrained, folder, "vae", "diffusion_pytorch_model")
    schedule = _schedule(read_config(folder, "scheduler", "scheduler_config.json"))
    version = f"{Path(name).name}-{weights_digest(folder)}"
    return DiffusionModel(version, unet, autoencoder, schedule, _empty_prompt(folder), device, dtype)


def random_model(name: str, architecture: Architecture, *, dtype: torch.dtype, device: torch.device) -> DiffusionModel:
    """Return a model with random weights, always the same: for tests, and to measure speed and memory.

    Its keys equal its queries, so that patches attend to similar ones and there is something to cut.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        unet = UNet2DConditionModel(**architecture.unet)
        autoencoder = AutoencoderKL(**architecture.autoencoder)
        tokens, pooled = torch.randn(1, _TOKENS, unet.config.cross_attention_dim), None
        if unet.config.addition_embed_type == "text_time":  # it takes six time ids beside the whole prompt
            time_channels = 6 * unet.config.addition_time_embed_dim
            pooled = torch.randn(1, unet.config.projection_class_embeddings_input_dim - time_channels)
    for layer in self_attention_layers(unet):
        queries, keys = (part.get_parameter("weight").data for part in (layer.projections.to_q, layer.projections.to_k))
        keys.copy_(queries.mul_(_QUERY_SCALE))
    prompt, schedule = PromptEmbedding(tokens, pooled), _schedule(architecture.noise)
    return DiffusionModel(f"{name}-random", unet, autoencoder, schedule, prompt, device, dtype)


def _schedule(config: Mapping[str, Any]) -> DDIMInverseScheduler:
    """Return the model's noise schedule with the timesteps 1, 21 … 981 of 50-step DDIM."""
    schedule = DDIMInverseScheduler.from_config(
        config, clip_sample=False, set_alpha_to_one=False, timestep_spacing="leading", steps_offset=1
    )
    schedule.set_timesteps(_DDIM_STEPS)
    return schedule


@torch.no_grad()
def _empty_prompt(folder: Path) -> PromptEmbedding:
    """Return the text encoders' embedding of the empty prompt; the encoders are not kept."""
    if not (folder / "text_encoder_2").is_dir():
        return PromptEmbedding(_encode_empty(CLIPTextModel, folder, "").last_hidden_state)
    first = _encode_empty(CLIPTextModel, folder, "")
    second = _encode_empty(CLIPTextModelWithProjection, folder, "_2")
    # SDXL uses the penultimate layer of both (Podell et al. 2023, section 2.1).
    return PromptEmbedding(torch.cat([first.hidden_states[-2], second.hidden_states[-2]], -1), second.text_embeds)


def _encode_empty(encoder: Any, folder: Path, suffix: str) -> Any:
    """Return the outputs of a text encoder for the empty prompt."""
    tokenizer_dir = folder / f"tokenizer{suffix}"
    # Read first, since transformers raises no error of its own for a damaged vocabulary.
    read_config(tokenizer_dir, "", "tokenizer.json" if (tokenizer_dir / "tokenizer.json").is_file() else "vocab.json")
    try:
        tokenizer = CLIPTokenizer.from_pretrained(tokenizer_dir, local_files_only=True)
    except (OSError, ValueError) as error:
        raise SettingsError(f"{tokenizer_dir} cannot be read: fetch it again") from error
    network = load_network(encoder.from_pretrained, folder, f"text_encoder{suffix}", "model").eval()
    tokens = tokenizer("", padding="max_length", max_length=_TOKENS, truncation=True, return_tensors="pt")
    return network(tokens.input_ids, output_hidden_states=True)
