"""`mfs calibrate gpu`: how close a GPU gets to its peaks, by the kernels of one layer of a model.

The result is a profile (`experiments.scenario.gpu_profile`). Only `open_bench` needs PyTorch.
"""

import datetime
from collections.abc import Callable
from typing import Protocol

import msgspec
from rich.table import Table

from experiments.calibrate.layer_kernels import Kernel, attention_kernels, layer_kernels, narrowed
from experiments.errors import UserError
from experiments.fitted_table import FittedTable
from testbed.models.gpus import GPUS, GpuSpeed, step_s
from testbed.models.shape import ModelShape


class Extent(msgspec.Struct, frozen=True, kw_only=True):
    """What is timed: a layer at each number of new `tokens`, a product of square matrices of `side`, and a
    copy of `copy_bytes`. The layer with the most tokens gives the efficiency."""

    tokens: tuple[int, ...]
    side: int
    copy_bytes: int


ON_CUDA = Extent(tokens=(16, 128, 1024, 4096), side=8192, copy_bytes=2**30)
ON_CPU = Extent(tokens=(4, 32, 128), side=768, copy_bytes=2**26)

_CPU_SHARE = 8
"""On a CPU the widths of the model are divided by this: the full ones would take minutes."""

_DEVICES = {
    "NVIDIA GeForce RTX 3090": "rtx-3090",
    "NVIDIA A100-SXM4-80GB": "a100",
    "NVIDIA H100 80GB HBM3": "h100",
    "NVIDIA H200": "h200",
}
"""Devices whose peaks are known, and their keys in `GPUS`. Variants (PCIe, less memory) differ."""


class TimedKernel(msgspec.Struct, frozen=True, kw_only=True):
    kernel: Kernel
    seconds: float


class Bench(Protocol):
    """Times kernels, as `workers.kernels.KernelBench` does."""

    @property
    def is_cpu(self) -> bool: ...
    @property
    def element_bytes(self) -> int: ...
    @property
    def device_name(self) -> str: ...
    @property
    def torch_version(self) -> str: ...
    def product_s(self, rows: int, inner: int, columns: int) -> float: ...
    def attention_s(
        self, tokens: int, *, heads: int, kv_heads: int, key_dim: int, value_dim: int
    ) -> float: ...
    def copy_bytes_per_s(self, size_bytes: int) -> float: ...
    def launch_s(self, products: int) -> float: ...


class MeasuredLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A profile, and what it was made from: a layer of `model` with weights of `element_bytes` each."""

    gpu: GpuSpeed
    model: str
    element_bytes: int
    timed: tuple[TimedKernel, ...]


def open_bench(device: str) -> Bench:
    """Return a bench on `device`: `auto`, `cuda` or `cpu`. Raises `UserError` without it or PyTorch."""
    try:
        from workers.kernels import KernelBench, NoSuchDevice
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UserError("PyTorch is missing; pip install 'mfs-testbed[emulation]' installs it") from None
    try:
        return KernelBench(device)
    except NoSuchDevice as error:
        raise UserError(
            f"--device {device}: {error}; --device cpu measures this machine's processor instead"
        ) from None


def measure(bench: Bench, model: ModelShape, *, on_start: Callable[[str], None]) -> MeasuredLayer:
    """Time the kernels of a layer of `model`; `on_start` is called with the name of each before it runs.

    The efficiency is the FLOP/s of the whole layer at the most tokens, divided by the vendor's peak if the
    device is known, or by the fastest rate that was measured. The memory efficiency is the bandwidth of a
    copy, divided by the vendor's if the device is known, and 1 otherwise.
    """
    extent = ON_CPU if bench.is_cpu else ON_CUDA
    name = model.name
    if bench.is_cpu:
        model, name = narrowed(model, _CPU_SHARE), f"{name} at 1/{_CPU_SHARE} of its widths"
    timed: list[TimedKernel] = []
    for tokens in extent.tokens:
        for kernel in layer_kernels(model, tokens):
            on_start(f"{kernel.label}, {tokens} tokens")
            timed.append(TimedKernel(kernel=kernel, seconds=_seconds(bench, kernel)))
    on_start("a large product, a copy, an empty step")
    side = extent.side
    square = 2 * side**3 / bench.product_s(side, side, side)
    copied = bench.copy_bytes_per_s(extent.copy_bytes)
    launch_s = bench.launch_s(products=sum(not kernel.heads for kernel in attention_kernels(model, 1)))
    measured = f"{bench.device_name}, torch {bench.torch_version}, {datetime.date.today()}"
    return MeasuredLayer(
        gpu=profile(bench.device_name, timed, square, copied, launch_s, measured),
        model=name,
        element_bytes=bench.element_bytes,
        timed=tuple(timed),
    )


def profile(
    device: str, timed: list[TimedKernel], square_flops: float, copied: float, launch_s: float, measured: str
) -> GpuSpeed:
    """Make the profile of `device`. `square_flops` is the FLOP/s of a large product, `copied` the bytes/s
    of a copy, `launch_s` the time of an empty step."""
    most = max(item.kernel.tokens for item in timed)
    layer = [item for item in timed if item.kernel.tokens == most]
    flops = sum(item.kernel.times * item.kernel.flops for item in layer)
    reached = flops / sum(item.kernel.times * item.seconds for item in layer)
    known = GPUS.get(_DEVICES.get(device, ""))
    products = [item.kernel.flops / item.seconds for item in timed if not item.kernel.heads]
    peak = known.peak_flops if known else max(square_flops, reached, *products)
    bandwidth = known.memory_bytes_per_s if known else copied
    return GpuSpeed(
        name=known.name if known else device,
        peak_flops=peak,
        memory_bytes_per_s=bandwidth,
        efficiency=min(1.0, reached / peak),
        memory_efficiency=min(1.0, copied / bandwidth),
        launch_s=launch_s,
        measured=measured,
    )


def kernel_rows(measured: MeasuredLayer) -> list[tuple[str, ...]]:
    """Return a head and a row per kernel: what was timed, and the time by the roofline of the profile."""
    rows: list[tuple[str, ...]] = [("tokens", "kernel", "shape", "times", "us", "TFLOP/s", "roofline us")]
    # A kernel is a part of a step, and the launch is counted once per step.
    roof = msgspec.structs.replace(measured.gpu, launch_s=0.0)
    for item in measured.timed:
        kernel = item.kernel
        expected_s = step_s(roof, flops=kernel.flops, read_bytes=kernel.weights * measured.element_bytes)
        rows.append(
            (
                str(kernel.tokens),
                kernel.label,
                kernel.shape,
                str(kernel.times),
                f"{item.seconds * 1e6:.1f}",
                f"{kernel.flops / item.seconds / 1e12:.3g}",
                f"{expected_s * 1e6:.1f}",
            )
        )
    return rows


def comments(measured: MeasuredLayer, command: str) -> str:
    """Return the text above the keys of the profile: how they were measured, and a line per kernel."""
    rows = kernel_rows(measured)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = "\n".join("  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows)
    return (
        f"A GPU profile, for the key `gpu` of a scenario. Written by: {command}\n"
        f"A layer of {measured.model}, {8 * measured.element_bytes}-bit; medians.\n\n{table}\n"
    )


def profile_table(measured: MeasuredLayer) -> Table:
    """Return the kernels as a table for the terminal."""
    head, *rows = kernel_rows(measured)
    table = FittedTable(gap=2)
    for heading in head:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _seconds(bench: Bench, kernel: Kernel) -> float:
    if not kernel.heads:
        return bench.product_s(kernel.tokens, kernel.inner, kernel.columns)
    return bench.attention_s(
        kernel.tokens,
        heads=kernel.heads,
        kv_heads=kernel.kv_heads,
        key_dim=kernel.key_dim,
        value_dim=kernel.value_dim,
    )
