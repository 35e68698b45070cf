"""Devices and precisions that models compute with."""

import torch

from walkcut.errors import SettingsError


def make_device(name: str) -> torch.device:
    """Return the device of this name. Raises `SettingsError` if it cannot be used here."""
    try:
        device = torch.device(name)
        torch.ones(2, device=device).sum().item()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SettingsError(f"WALKCUT_DEVICE={name!r} cannot be used here ({reason}): {_remedy(name)}") from error
    return device


def make_dtype(name: str) -> torch.dtype:
    """Return the precision of this name, such as float32."""
    dtype: torch.dtype = getattr(torch, name)
    return dtype


def describe_device(device: torch.device) -> str:
    """Return a device's name, and a GPU's model and memory."""
    if device.type != "cuda":
        return str(device)
    free, total = (size >> 30 for size in torch.cuda.mem_get_info(device))
    return f"{device} ({torch.cuda.get_device_name(device)}, {free} of {total} GiB free)"


def cpu_threads() -> int:
    """Return the number of threads that torch computes with on the CPU."""
    return torch.get_num_threads()


def has_cuda() -> bool:
    """Return whether a CUDA device can be used."""
    return torch.cuda.is_available()


def _remedy(name: str) -> str:
    if not name.startswith("cuda"):
        return "set it to cpu, cuda or cuda:1"
    if torch.version.cuda is None:
        return "this PyTorch is built without CUDA: install one with CUDA, or set WALKCUT_DEVICE=cpu"
    if torch.cuda.is_available():
        return f"this machine has {torch.cuda.device_count()} GPUs, numbered from cuda:0: choose one of them"
    return (
        "check that `nvidia-smi` lists a GPU (a container needs the NVIDIA container toolkit and `--gpus all`), "
        "or set WALKCUT_DEVICE=cpu"
    )
