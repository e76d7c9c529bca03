"""GPU speeds: the vendors' dense 16-bit peaks, and how much of them prefill is assumed to reach."""

from testbed.job import GpuSpeed

ASSUMED_EFFICIENCY = 0.5
"""Share of the dense peak that prefill reaches: an assumption, not a measurement.

Prefill of large batches is compute-bound but stays below the peak (clocks under load, attention,
kernel tails), and half is a round number in the plausible middle. It is the same for all GPUs, so
their ratio is that of their peaks. To be replaced by a calibration of the GPU at hand.
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
    )
}
"""GPUs by name. All peaks are without sparsity and with FP32 accumulation; A100 is the 80 GB SXM."""


def compute_s(gpu: GpuSpeed, flops: float) -> float:
    """Seconds that `flops` of prefill take on one GPU (compute-bound)."""
    return flops / (gpu.peak_flops * gpu.efficiency)


def memory_s(gpu: GpuSpeed, read_bytes: float) -> float:
    """Seconds that reading `read_bytes` of weights and KV takes on one GPU (memory-bound)."""
    return read_bytes / gpu.memory_bytes_per_s
