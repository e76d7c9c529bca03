"""What a run may choose for its ranks. Imports no torch: scenarios and jobs are made of it."""

import enum


class Device(enum.StrEnum):
    """Where a rank's tensors live; `AUTO` is CUDA where there is a CUDA device."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class ComputeMode(enum.StrEnum):
    """How a rank computes: a wait of the modelled time, or matrix products that take about as long."""

    TIMED = "timed"
    MATMUL = "matmul"
