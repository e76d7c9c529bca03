"""GPU speeds: the vendors' dense 16-bit peaks, how much of them prefill is assumed to reach, the roofline."""

import msgspec


class GpuSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Dense 16-bit peak and memory bandwidth of a GPU, and the shares of them that prefill reaches.

    `launch_s` is what a step takes besides its work. `measured` is where the shares come from, empty for an
    assumption.
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

Prefill of large batches is compute-bound but stays below the peak (clocks under load, attention,
kernel tails), and half is a round number in the plausible middle. It is the same for all GPUs, so
their ratio is that of their peaks. `mfs calibrate gpu` measures the GPU at hand.
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
"""GPUs by name. All peaks are 16-bit tensor-core rates without sparsity and with FP32 accumulation, as NVIDIA
states them: of the RTX 3090 in the GA102 whitepaper, of the A100 (80 GB SXM), H100 (SXM) and H200 (SXM) in
their data sheets, which for the last two print the rate with sparsity, twice this one."""


def compute_s(gpu: GpuSpeed, flops: float) -> float:
    """Seconds that `flops` of prefill take on one GPU (compute-bound)."""
    return flops / (gpu.peak_flops * gpu.efficiency)


def memory_s(gpu: GpuSpeed, read_bytes: float) -> float:
    """Seconds that reading `read_bytes` of weights and KV takes on one GPU (memory-bound)."""
    return read_bytes / (gpu.memory_bytes_per_s * gpu.memory_efficiency)


def step_s(gpu: GpuSpeed, *, flops: float, read_bytes: float) -> float:
    """Seconds of one step of compute by the roofline: what is slower, computing or reading; 0 without work.

    Williams, Waterman and Patterson, "Roofline: an insightful visual performance model" (CACM 2009).
    `launch_s` comes on top.
    """
    if not flops and not read_bytes:
        return 0.0
    return max(compute_s(gpu, flops), memory_s(gpu, read_bytes)) + gpu.launch_s
