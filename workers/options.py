"""What a run can choose for its ranks. Imports no torch, because scenarios and jobs import this."""

import enum


class Device(enum.StrEnum):
    """Where a rank's tensors live. `AUTO` is CUDA if there is a CUDA device."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class ComputeMode(enum.StrEnum):
    """How a rank computes: it waits for the modelled time, or does matrix products for about as long."""

    TIMED = "timed"
    MATMUL = "matmul"
