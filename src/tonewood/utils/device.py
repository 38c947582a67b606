"""Devices that networks run on."""

import torch

from tonewood.errors import CallError, DeviceError


def check_device(device: str) -> None:
    """Raise CallError for an unknown kind of device, DeviceError for one that this machine lacks."""
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise CallError(f"--device is {device!r}: choose cpu or cuda")
    if device != "cpu" and not torch.cuda.is_available():
        raise DeviceError("this machine has no CUDA device: use --device cpu")
