"""Several processes that train one scorer: what `torchrun` starts, joined by torch.distributed."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed

from tonewood.errors import CallError, DeviceError
from tonewood.settings import TrainingSettings


@contextmanager
def distributed_group(device: str, training: TrainingSettings) -> Iterator[str]:
    """Join the processes that `torchrun` started; yields the device of this one.

    Alone, which may be under `torchrun` too, nothing is joined and nothing changes.

    Raises
    ------
    CallError
        Batches cannot be shared out among so many.
    DeviceError
        There are not as many CUDA devices on this machine as processes.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield device
        return
    if training.batch % count:
        raise CallError(
            f"training.batch is {training.batch}; {count} processes cannot share it out: set a "
            f"multiple of {count}"
        )
    if device == "cuda":
        place = int(os.environ["LOCAL_RANK"])
        if place >= torch.cuda.device_count():
            raise DeviceError(
                f"process {place} of this machine has no CUDA device of its own; there are "
                f"{torch.cuda.device_count()}: start no more processes than that"
            )
        torch.cuda.set_device(place)
        device = f"cuda:{place}"
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()
