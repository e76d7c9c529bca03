"""What a run can choose for its ranks. Imports no torch, because scenarios and jobs import this."""

import enum


class Device(enum.StrEnum):
    """Where a rank's tensors live. `AUTO` is CUDA if there is a CUDA device."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


class ComputeMode(enum.StrEnum):
    """How a rank computes.

    - `TIMED`: it waits for the modelled time.
    - `MATMUL`: it does matrix products for about as long.
    - `KERNELS`: it runs attention and feed-forwards with the sizes of the model for about as long.
    - `MODEL`: it computes its shard of a model with random weights, and waits for the rest of the modelled
      time. Transfers carry its real KV, and collectives its real hidden states (`workers.model`).
    """

    TIMED = "timed"
    MATMUL = "matmul"
    KERNELS = "kernels"
    MODEL = "model"
