"""Finding weights, and errors with remedies for missing ones."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from tests.builders.tiny_diffusion import CPU, write_folder
from walkcut.backbones.weights import (
    ARCHITECTURES,
    check_dtype,
    find_file,
    find_weights,
    weights_digest,
    working_size,
)
from walkcut.errors import SettingsError


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("weights") / "tiny", "sd14")


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A model that the test may spoil."""
    return Path(shutil.copytree(written, tmp_path / "tiny"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache, still empty."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def as_family(folder: Path, weights: Path, name: str) -> Path:
    """Return a copy of the folder that passes for the family's."""
    shutil.copytree(folder, weights / name)
    edit(weights / name / "unet" / "config.json", cross_attention_dim=ARCHITECTURES[name].unet["cross_attention_dim"])
    return weights / name


def test_a_folder_is_found_by_its_path(folder: Path) -> None:
    assert find_weights(str(folder)) == folder


def test_a_family_is_found_by_its_name_in_the_folder_of_weights(folder: Path, tmp_path: Path) -> None:
    expected = as_family(folder, tmp_path / "weights", "sd15")
    assert find_weights("sd15", tmp_path / "weights") == expected


@pytest.mark.parametrize("name", ["sd14", "CompVis/stable-diffusion-v1-4"])
def test_weights_in_the_hubs_cache_are_found(name: str, folder: Path, cache: Path) -> None:
    repository = cache / "models--CompVis--stable-diffusion-v1-4"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abcd")
    expected = as_family(folder, repository / "snapshots", "sd14").rename(repository / "snapshots" / "0123abcd")
    assert find_weights(name) == expected


def test_missing_weights_are_named_with_the_command_that_fetches_them(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="the weights of sdxl are not on this machine") as error:
        find_weights("sdxl", tmp_path / "weights")
    for part in (
        "hf download stabilityai/stable-diffusion-xl-base-1.0 model_index.json",
        "unet/diffusion_pytorch_model.safetensors",
        "text_encoder_2/model.safetensors",
        f"--local-dir {tmp_path / 'weights' / 'sdxl'}`; without a network here",
    ):
        assert part in str(error.value)


@pytest.mark.parametrize("name", ["magic", "a/b/c", "/nowhere/model", "owner/spa ce"])
def test_an_unknown_model_is_refused(name: str) -> None:
    with pytest.raises(
        SettingsError, match=r"unknown model '.*': choose one of .*, sd14, .*, a diffusers folder, owner/name"
    ):
        find_weights(name)


def test_an_id_that_is_not_in_the_cache_says_how_to_fetch_it() -> None:
    with pytest.raises(
        SettingsError, match=r"run `hf download owner/name`; .* copy the result to the hub's cache, or add --local-dir"
    ):
        find_weights("owner/name")


@pytest.mark.parametrize(
    "missing",
    ["unet/config.json", "vae/diffusion_pytorch_model.safetensors", "tokenizer/merges.txt", "text_encoder/config.json"],
)
def test_a_missing_file_is_named(missing: str, folder: Path, tmp_path: Path) -> None:
    (folder / missing).unlink()
    with pytest.raises(SettingsError, match=f"tiny lacks {missing}: copy them from the source of the model"):
        find_weights(str(folder))
    family = shutil.copytree(folder, tmp_path / "weights" / "sd14")
    with pytest.raises(SettingsError, match=f"hf download CompVis/[^ ]* {missing} --local-dir {family}`; without"):
        find_weights("sd14", tmp_path / "weights")


def test_a_missing_file_of_the_cache_is_fetched_into_the_cache(folder: Path, cache: Path) -> None:
    repository = cache / "models--owner--name"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abcd")
    (folder / "unet" / "config.json").unlink()
    shutil.copytree(folder, repository / "snapshots" / "0123abcd")
    with pytest.raises(
        SettingsError, match=r"run `hf download owner/name unet/config\.json`; .* copy the result to the hub's"
    ):
        find_weights("owner/name")


def test_a_tokenizer_in_one_file_is_enough(folder: Path) -> None:
    for file in ("merges.txt", "vocab.json", "special_tokens_map.json"):
        (folder / "tokenizer" / file).unlink()
    (folder / "tokenizer" / "tokenizer.json").touch()
    assert find_weights(str(folder)) == folder


def test_files_that_can_run_code_are_not_read(folder: Path) -> None:
    (folder / "unet" / "diffusion_pytorch_model.safetensors").rename(folder / "unet" / "diffusion_pytorch_model.bin")
    with pytest.raises(SettingsError, match=r"lacks unet/.*\.safetensors \(unet/diffusion_pytorch_model.bin is not re"):
        find_weights(str(folder))


def test_a_checkpoint_is_no_diffusers_folder(tmp_path: Path) -> None:
    (tmp_path / "v1-5.ckpt").touch()
    with pytest.raises(
        SettingsError, match=r"is not a diffusers folder: it has no model_index\.json; convert the model"
    ):
        find_weights(str(tmp_path))


def test_another_kind_of_pipeline_is_refused(folder: Path) -> None:
    edit(folder / "model_index.json", _class_name="FluxPipeline")
    with pytest.raises(SettingsError, match="holds a FluxPipeline: choose a model of StableDiffusionPipeline or"):
        find_weights(str(folder))


def test_a_file_that_is_no_json_is_named(folder: Path) -> None:
    (folder / "model_index.json").write_text("{")
    with pytest.raises(SettingsError, match=r"model_index.json cannot be read: fetch it again"):
        find_weights(str(folder))


def test_a_folder_of_another_family_is_refused(folder: Path, tmp_path: Path) -> None:
    as_family(folder, tmp_path / "weights", "sd21").rename(tmp_path / "weights" / "sd14")
    with pytest.raises(SettingsError, match="sd14 holds no sd14 but sd21: rename the folder"):
        find_weights("sd14", tmp_path / "weights")
    shutil.copytree(folder, tmp_path / "weights" / "sd15")
    with pytest.raises(SettingsError, match="sd15 holds no sd15 but another model"):
        find_weights("sd15", tmp_path / "weights")


def test_full_precision_comes_before_half(folder: Path) -> None:
    full, half = (folder / "unet" / f"diffusion_pytorch_model.{kind}" for kind in ("safetensors", "fp16.safetensors"))
    shutil.copy(full, half)
    assert find_file(folder, "unet", "diffusion_pytorch_model") == full
    full.unlink()
    assert find_file(folder, "unet", "diffusion_pytorch_model") == half
    assert find_weights(str(folder)) == folder


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("changed", [0, -1])
def test_the_fingerprint_changes_with_the_weights(part: str, changed: int, tmp_path: Path) -> None:
    (tmp_path / part).mkdir()
    content = bytearray(3 << 20)
    prints = set()
    for _ in range(2):
        (tmp_path / part / "model.safetensors").write_bytes(content)
        prints |= {weights_digest(tmp_path), weights_digest(tmp_path)}
        content[changed] += 1
    assert len(prints) == 2


def test_a_precision_that_the_device_cannot_compute_in_is_refused() -> None:
    check_dtype(torch.float32, CPU)
    with pytest.raises(SettingsError, match=r"cpu cannot compute in torch\.float8_e5m2: choose float32"):
        check_dtype(torch.float8_e5m2, CPU)


def test_half_precision_is_refused_where_the_processor_has_no_convolution_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def convolve(images: torch.Tensor, _filters: torch.Tensor) -> None:
        raise RuntimeError(f"\"slow_conv2d_cpu\" not implemented for '{images.dtype}'")

    monkeypatch.setattr(torch.nn.functional, "conv2d", convolve)
    with pytest.raises(SettingsError, match=r"cpu cannot compute in torch\.float16: choose float32, or another device"):
        check_dtype(torch.float16, CPU)


@given(st.integers(16, 5000), st.integers(16, 5000), st.sampled_from([(512, 64), (768, 64), (1024, 32)]))
def test_working_sizes_keep_area_and_aspect(height: int, width: int, model: tuple[int, int]) -> None:
    side, multiple = model
    size = working_size((height, width), side, multiple)
    assert all(edge % multiple == 0 and edge >= multiple for edge in size)
    assert size[0] * size[1] <= 1.25 * side**2
    if max(height, width) <= 4 * min(height, width):
        assert size[0] * size[1] >= 0.75 * side**2
        assert abs(size[0] - side * (height / width) ** 0.5) <= multiple / 2
    assert size[::-1] == working_size((width, height), side, multiple)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((512, 512), (512, 512)), ((37, 37), (512, 512)), ((480, 640), (448, 576)), ((16, 100_000), (64, 4096))],
)
def test_working_sizes_by_hand(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert working_size(size, 512, 64) == expected
