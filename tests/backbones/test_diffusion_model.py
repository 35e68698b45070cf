"""Diffusion models: against diffusers' own pipelines, and the formulas of the papers."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import CLIPTokenizer

from tests.builders.tiny_diffusion import CPU, FAMILIES, tiny_model, write_folder
from walkcut.backbones.diffusion_model import DiffusionModel, load_model
from walkcut.backbones.weights import ARCHITECTURES
from walkcut.errors import SettingsError

LATENTS = torch.randn(2, 4, 16, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The weights of a tiny model with one text encoder, and of one with two."""
    root = tmp_path_factory.mktemp("weights")
    return {family: write_folder(root / family, family) for family in ("sd21", "ssd1b")}


def load(folder: Path) -> Any:
    return load_model(str(folder), weights=None, dtype=torch.float32, device=CPU)


@pytest.mark.parametrize("family", ["sd21", "ssd1b"])
def test_what_was_written_is_loaded(family: str, folders: dict[str, Path]) -> None:
    model = load(folders[family])
    written = load_file(folders[family] / "unet" / "diffusion_pytorch_model.safetensors")
    state = model.unet.state_dict()
    assert all(torch.equal(state[name], weights) for name, weights in written.items())
    assert set(state) == set(written)
    assert not model.unet.training
    assert not any(weights.requires_grad for weights in [*model.unet.parameters(), *model.autoencoder.parameters()])
    assert model.schedule.config.prediction_type == ("v_prediction" if family == "sd21" else "epsilon")


@pytest.mark.parametrize(
    ("family", "pipeline"), [("sd21", StableDiffusionPipeline), ("ssd1b", StableDiffusionXLPipeline)]
)
@torch.no_grad()
def test_the_empty_prompt_is_that_of_diffusers(family: str, pipeline: Any, folders: dict[str, Path]) -> None:
    options: dict[str, Any] = {"safety_checker": None, "feature_extractor": None} if family == "sd21" else {}
    reference = pipeline.from_pretrained(folders[family], local_files_only=True, **options)
    tokens, _, *pooled = reference.encode_prompt(
        "", device=CPU, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    prompt = load(folders[family]).prompt
    torch.testing.assert_close(prompt.tokens, tokens)
    assert (prompt.pooled is None) == (not pooled)
    if pooled:
        torch.testing.assert_close(prompt.pooled, pooled[0])


def test_damaged_weights_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", "sd14")
    path = folder / "unet" / "diffusion_pytorch_model.safetensors"
    rewrite(path, lambda name: [] if name == "conv_in.weight" else [name])
    with pytest.raises(SettingsError, match=r"model\.safetensors lacks conv_in\.weight: fetch it again"):
        load(folder)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(SettingsError, match="unet cannot be read: fetch it again"):
        load(folder)


@pytest.mark.parametrize(
    ("file", "name"), [("text_encoder/model.safetensors", "text_encoder"), ("tokenizer/vocab.json", "tokenizer")]
)
def test_a_damaged_text_encoder_is_named(file: str, name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", "sd14")
    (folder / file).write_bytes(b"nothing")
    with pytest.raises(SettingsError, match=f"{name}.* cannot be read: fetch it again"):
        load(folder)


def test_a_tokenizer_in_one_file_gives_the_same_prompt(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["sd21"], tmp_path / "one"))
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer", local_files_only=True)
    shutil.rmtree(folder / "tokenizer")
    tokenizer.save_pretrained(folder / "tokenizer")
    torch.testing.assert_close(load(folder).prompt.tokens, load(folders["sd21"]).prompt.tokens)


def test_settings_that_no_network_has_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", "sd14")
    (folder / "unet" / "config.json").write_text('{"block_out_channels": 3}')
    with pytest.raises(SettingsError, match="unet cannot be read: fetch it again"):
        load(folder)


def test_an_incomplete_text_encoder_is_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", "sd14")
    rewrite(folder / "text_encoder" / "model.safetensors", lambda name: [] if "final_layer_norm" in name else [name])
    with pytest.raises(SettingsError, match=r"model\.safetensors lacks .*final_layer_norm\.bias: fetch it again"):
        load(folder)


def test_the_names_that_weights_had_in_older_files_are_understood(folders: dict[str, Path], tmp_path: Path) -> None:
    folder, older = Path(shutil.copytree(folders["sd21"], tmp_path / "older")), {"to_q": "query", "to_k": "key"}
    older |= {"to_v": "value", "to_out.0": "proj_attn"}
    rewrite(folder / "vae" / "diffusion_pytorch_model.safetensors", lambda name: [_renamed(name, older)])
    rewrite(
        folder / "text_encoder" / "model.safetensors", lambda name: [f"text_model.{name.removeprefix('text_model.')}"]
    )
    first, second = load(folders["sd21"]), load(folder)
    torch.testing.assert_close(first.prompt.tokens, second.prompt.tokens)
    assert all(map(torch.equal, first.autoencoder.parameters(), second.autoencoder.parameters()))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_half_precision_files_are_read(part: str, folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["sd21"], tmp_path / "half"))
    (full,) = (folder / part).glob("*.safetensors")
    half = full.with_suffix(".fp16.safetensors")
    save_file({name: weights.half() for name, weights in load_file(full).items()}, half, {"format": "pt"})
    full.unlink()
    if part == "text_encoder":  # whose configuration says how the weights were saved
        config = json.loads((folder / part / "config.json").read_text())
        (folder / part / "config.json").write_text(json.dumps({**config, "dtype": "float16", "torch_dtype": "float16"}))
    first, second = load(folders["sd21"]), load(folder)
    assert {weights.dtype for weights in second.unet.parameters()} == {torch.float32}
    torch.testing.assert_close(first.prompt.tokens, second.prompt.tokens, atol=1e-2, rtol=1e-2)


def rewrite(path: Path, rename: Callable[[str], list[str]]) -> None:
    """Rewrite the file with other names for its weights, without those that get none."""
    weights = {new: value for old, value in load_file(path).items() for new in rename(old)}
    save_file(weights, path, {"format": "pt"})


def _renamed(name: str, parts: Mapping[str, str]) -> str:
    for new, old in parts.items():
        name = name.replace(f".{new}.", f".{old}.")
    return name


def test_the_version_changes_with_the_weights(folders: dict[str, Path], tmp_path: Path) -> None:
    other = write_folder(tmp_path / "ssd1b", "ssd1b")
    path = other / "unet" / "diffusion_pytorch_model.safetensors"
    save_file({name: weights + 1 for name, weights in load_file(path).items()}, path, {"format": "pt"})
    first, second = load(folders["ssd1b"]).version, load(other).version
    assert first.rsplit("-", 1)[1] != second.rsplit("-", 1)[1]


def test_random_weights_are_always_the_same_and_keep_torchs_seed() -> None:
    first, state = tiny_model("sdxl"), torch.manual_seed(1).get_state()
    second = tiny_model("sdxl")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(map(torch.equal, first.unet.parameters(), second.unet.parameters()))
    assert torch.equal(first.prompt.tokens, second.prompt.tokens)


@pytest.mark.parametrize(
    ("family", "parameters"),
    [("sd14", 859_520_964), ("sd21", 865_910_724), ("ssd1b", 1_331_334_404), ("sdxl", 2_567_463_684)],
)
def test_architectures_have_the_published_number_of_parameters(family: str, parameters: int) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**ARCHITECTURES[family].unet)
    assert sum(weights.numel() for weights in unet.parameters()) == parameters


@pytest.mark.parametrize(("family", "side"), [("sd14", 512), ("sd15", 512), ("sd21", 768), ("ssd1b", 1024)])
def test_native_sides(family: str, side: int) -> None:
    assert ARCHITECTURES[family].unet["sample_size"] * 8 == side


@torch.no_grad()
def test_latents_are_the_scaled_mean_of_the_posterior() -> None:
    model = tiny_model("sdxl")
    images = torch.randint(0, 256, (2, 96, 128, 3), dtype=torch.uint8)
    pixels = images.permute(0, 3, 1, 2) / 127.5 - 1
    expected = model.autoencoder.encode(pixels).latent_dist.mode() * 0.13025
    torch.testing.assert_close(model.encode(list(images), (96, 128)), expected)
    assert model.encode(list(images), (64, 128)).shape == (2, 4, 8, 16)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_inversion_takes_ten_steps_to_step_40_of_50(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(family)
    timesteps: list[int] = []

    def predict(self: object, latents: torch.Tensor, timestep: int) -> torch.Tensor:
        timesteps.append(timestep)
        return 0.1 * latents

    monkeypatch.setattr(type(model), "predict", predict)
    inverted = model.invert(LATENTS, 181)
    assert timesteps == list(range(1, 182, 20))
    kept = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square().neg().add(1).cumprod(0)
    expected = LATENTS.double()
    for before, after in zip([0, *timesteps[:-1]], timesteps, strict=True):
        a, b, output = kept[before], kept[after], 0.1 * expected
        noise = output if family != "sd21" else a**0.5 * output + (1 - a) ** 0.5 * expected
        clean = (expected - (1 - a) ** 0.5 * noise) / a**0.5
        expected = b**0.5 * clean + (1 - b) ** 0.5 * noise
    torch.testing.assert_close(inverted, expected.float(), atol=1e-5, rtol=1e-4)


def test_noise_is_seeded_shared_and_of_the_timesteps_strength() -> None:
    model = tiny_model("sd14")
    noisy = model.add_noise(torch.zeros(2, 4, 64, 64), 50, seed=42)
    assert torch.equal(noisy[0], noisy[1])
    assert torch.equal(noisy, model.add_noise(torch.zeros(2, 4, 64, 64), 50, seed=42))
    assert not torch.equal(noisy, model.add_noise(torch.zeros(2, 4, 64, 64), 50, seed=43))
    kept = 1 - float(noisy.var())
    assert kept == pytest.approx(float(model.schedule.alphas_cumprod[50]), abs=2e-3)
    shift = model.add_noise(torch.ones(1, 4, 64, 64), 50, seed=42) - noisy[:1]
    torch.testing.assert_close(shift, torch.full_like(shift, float(model.schedule.alphas_cumprod[50]) ** 0.5))


@torch.no_grad()
def test_sdxl_takes_the_size() -> None:
    model = tiny_model("sdxl")
    conditions: list[dict[str, torch.Tensor]] = []
    handle = model.unet.register_forward_pre_hook(
        lambda _module, _inputs, options: conditions.append(options["added_cond_kwargs"]), with_kwargs=True
    )
    model.predict(LATENTS, 50)
    handle.remove()
    assert conditions[0]["time_ids"].tolist() == [[128, 64, 0, 0, 128, 64]] * 2
    assert conditions[0]["text_embeds"].shape == (2, 8)


def dtypes_of(model: DiffusionModel) -> list[torch.dtype]:
    return [model.unet.dtype, model.autoencoder.dtype]


def test_networks_on_the_cpu_are_in_float32_and_return_unchanged() -> None:
    model = tiny_model("sd14", dtype=torch.bfloat16)
    before = [weights.clone() for weights in model.unet.parameters()]
    with model.offload_to_cpu():
        assert dtypes_of(model) == [torch.float32, torch.float32]
    assert dtypes_of(model) == [torch.bfloat16, torch.float32]
    with pytest.raises(ZeroDivisionError), model.offload_to_cpu():
        raise ZeroDivisionError
    assert dtypes_of(model) == [torch.bfloat16, torch.float32]
    assert all(map(torch.equal, model.unet.parameters(), before))


def test_networks_stay_on_the_cpu_until_their_device_has_memory(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model("sd14", dtype=torch.bfloat16)
    move, last = nn.Module.to, model.unet.conv_out

    def half_way(module: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> nn.Module:
        if dtype != torch.bfloat16:
            return move(module, device, dtype)
        move(module, device, dtype)
        move(last, device, torch.float32)
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patched:
        patched.setattr(nn.Module, "to", half_way)
        with model.offload_to_cpu():
            pass
    assert {weights.dtype for weights in model.unet.parameters()} == {torch.float32}
    assert caplog.messages == ["sd14-random stays on the CPU until cpu has memory for it"]
    assert model.dtype == torch.bfloat16
    model.restore_device()
    assert {weights.dtype for weights in model.unet.parameters()} == {torch.bfloat16}


def test_sharded_weights_are_read(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["sd21"], tmp_path / "sharded"))
    single = folder / "unet" / "diffusion_pytorch_model.safetensors"
    single.unlink()
    load(folders["sd21"]).unet.save_pretrained(folder / "unet", max_shard_size="100KB")
    shards = list((folder / "unet").glob("*-of-*.safetensors"))
    assert len(shards) > 1
    assert not single.exists()
    first, second = load(folders["sd21"]), load(folder)
    assert all(map(torch.equal, first.unet.parameters(), second.unet.parameters()))
    shards[0].unlink()
    with pytest.raises(SettingsError, match="unet cannot be read: fetch it again"):
        load(folder)
