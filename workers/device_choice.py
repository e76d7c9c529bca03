"""Which device a rank uses."""

import torch

from workers.options import Device


def choose_device(wanted: Device, rank: int, ranks: int) -> tuple[torch.device, bool]:
    """The device of a rank, and whether collectives can use NCCL there.

    `auto` takes CUDA if there is any. NCCL needs a GPU per rank; with fewer, ranks share GPUs and
    collectives use gloo. Raises `RuntimeError` for `cuda` on a machine without CUDA.
    """
    available = torch.cuda.is_available()
    if wanted is Device.CUDA and not available:
        raise RuntimeError("workers.device is cuda, but this machine has no CUDA device")
    if wanted is Device.CPU or not available:
        return torch.device("cpu"), False
    count = torch.cuda.device_count()
    return torch.device("cuda", rank % count), count >= ranks
