"""GPU speeds: NVIDIA's dense 16-bit peaks, the share that prefill reaches, the roofline."""

import msgspec


class GpuSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Dense 16-bit peak and memory bandwidth of a GPU, and the share of each that prefill reaches.

    `peak_flops` is in FLOP/s. `launch_s` is the time that a step takes besides its work. `measured` says
    where the shares come from; it is empty if they are assumed.
    """

    name: str
    peak_flops: float
    memory_bytes_per_s: float
    efficiency: float
    memory_efficiency: float = 1.0
    launch_s: float = 0.0
    measured: str = ""


ASSUMED_EFFICIENCY = 0.5
"""Share of the dense peak that prefill reaches: an assumption, not a measurement.

Prefill of large batches is compute-bound but stays below the peak (clocks under load, attention, kernel
tails). Half is a round number in the middle of what is plausible. All GPUs have the same share, so their
speeds compare as their peaks do. `mfs calibrate gpu` measures the GPU at hand.
"""

GPUS: dict[str, GpuSpeed] = {
    name: GpuSpeed(
        name=name,
        peak_flops=peak_flops,
        memory_bytes_per_s=memory_bytes_per_s,
        efficiency=ASSUMED_EFFICIENCY,
    )
    for name, peak_flops, memory_bytes_per_s in (
        ("rtx-3090", 71e12, 936e9),
        ("a100", 312e12, 2039e9),
        ("h100", 989.4e12, 3350e9),
        ("h200", 989.4e12, 4800e9),
    )
}
"""GPUs by name. All peaks are NVIDIA's 16-bit tensor-core rates without sparsity, with FP32 accumulation.

The peak of the RTX 3090 is from the GA102 whitepaper. The others are from the data sheets of the A100
(80 GB SXM), H100 (SXM) and H200 (SXM). The last two state the rate with sparsity, which is double."""


def compute_s(gpu: GpuSpeed, flops: float) -> float:
    """Return the seconds that `flops` of prefill take on one GPU (compute-bound)."""
    return flops / (gpu.peak_flops * gpu.efficiency)


def memory_s(gpu: GpuSpeed, read_bytes: float) -> float:
    """Return the seconds that reading `read_bytes` of weights and KV takes on one GPU (memory-bound)."""
    return read_bytes / (gpu.memory_bytes_per_s * gpu.memory_efficiency)


def step_s(gpu: GpuSpeed, *, flops: float, read_bytes: float) -> float:
    """Return the seconds of one compute step by the roofline, plus `launch_s`; 0 if there is no work.

    A step takes as long as its computing or its reading, whichever is slower. Williams, Waterman and
    Patterson, "Roofline: an insightful visual performance model" (CACM 2009).
    """
    if not flops and not read_bytes:
        return 0.0
    return max(compute_s(gpu, flops), memory_s(gpu, read_bytes)) + gpu.launch_s
