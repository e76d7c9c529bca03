"""Times of a layer's kernels on this device: matrix products, attention, a copy, and tiny kernels.

For `mfs calibrate gpu` only. It makes its own tensors, and the ranks of a run do not use it.
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.nn.functional import scaled_dot_product_attention

REPEATS = 7
"""Samples of each kernel; the median counts."""

_SAMPLE_S = {"cpu": 0.01, "cuda": 0.02}
"""A sample repeats a kernel for about this many seconds, so that the clock's resolution matters little."""

_MOST_RUNS = 2000
_EMPTY = 8


class NoSuchDevice(Exception):
    """This machine does not have the device that was asked for."""


class KernelBench:
    """Times kernels on one device: with bfloat16 elements on CUDA, and with float32 ones on a CPU."""

    def __init__(self, device: str) -> None:
        """`device` is `auto`, `cuda` or `cpu`. Raises `NoSuchDevice` for `cuda`, or `auto`, without CUDA."""
        if device != "cpu" and not torch.cuda.is_available():
            raise NoSuchDevice("there is no CUDA device here")
        self._device = torch.device("cpu" if device == "cpu" else "cuda")
        self._dtype = torch.float32 if self.is_cpu else torch.bfloat16

    @property
    def is_cpu(self) -> bool:
        return str(self._device.type) == "cpu"

    @property
    def element_bytes(self) -> int:
        return int(self._dtype.itemsize)

    @property
    def device_name(self) -> str:
        """The GPU's name from its driver, or the CPU's model name from /proc/cpuinfo."""
        return _processor() if self.is_cpu else str(torch.cuda.get_device_name(self._device))

    @property
    def torch_version(self) -> str:
        return str(torch.__version__)

    def product_s(self, rows: int, inner: int, columns: int) -> float:
        """Seconds of one `rows x inner` by `inner x columns` product."""
        left, right = self._random(rows, inner), self._random(inner, columns)
        out = torch.empty((rows, columns), dtype=self._dtype, device=self._device)
        return self._median_s(lambda: torch.mm(left, right, out=out))

    def attention_s(self, tokens: int, *, heads: int, kv_heads: int, key_dim: int, value_dim: int) -> float:
        """Seconds of causal attention among `tokens` tokens; `heads` query heads share `kv_heads` heads."""
        queries = self._random(1, heads, tokens, key_dim)
        keys = self._random(1, kv_heads, tokens, key_dim)
        values = self._random(1, kv_heads, tokens, value_dim)
        return self._median_s(
            lambda: scaled_dot_product_attention(
                queries, keys, values, is_causal=True, enable_gqa=heads != kv_heads
            )
        )

    def copy_bytes_per_s(self, size_bytes: int) -> float:
        """Bytes that a copy of `size_bytes` reads and writes per second, added up."""
        source = torch.ones(size_bytes, dtype=torch.uint8, device=self._device)
        target = torch.empty_like(source)
        return 2 * size_bytes / self._median_s(lambda: target.copy_(source))

    def launch_s(self, products: int) -> float:
        """Seconds of a step of `products` matrix products and one attention, all of them tiny."""
        left = self._random(_EMPTY, _EMPTY)
        out = torch.empty_like(left)
        heads = self._random(1, 1, _EMPTY, _EMPTY)

        def step() -> None:
            for _ in range(products):
                torch.mm(left, left, out=out)
            scaled_dot_product_attention(heads, heads, heads, is_causal=True)

        return self._median_s(step)

    def _random(self, *shape: int) -> torch.Tensor:
        # Zeros would draw less power than real activations, and so run faster.
        return torch.randn(shape, dtype=self._dtype, device=self._device)

    def _median_s(self, work: Callable[[], object]) -> float:
        """Seconds of one run of `work`: the median over samples, each of many runs in a row."""
        with torch.inference_mode(), self._threads():
            self._timed_s(work, 1)  # the first run chooses kernels and grows the allocator's pools
            once_s = max(self._timed_s(work, 2) / 2, 1e-9)
            runs = min(max(1, round(_SAMPLE_S[self._device.type] / once_s)), _MOST_RUNS)
            return statistics.median(self._timed_s(work, runs) / runs for _ in range(REPEATS))

    @contextmanager
    def _threads(self) -> Iterator[None]:
        """Use one thread on a CPU, as a rank does. Several would wait for each other on a busy machine."""
        before = torch.get_num_threads()
        if self.is_cpu:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)

    def _timed_s(self, work: Callable[[], object], runs: int) -> float:
        self._finish()
        start = time.perf_counter()
        for _ in range(runs):
            work()
        self._finish()
        return time.perf_counter() - start

    def _finish(self) -> None:
        if not self.is_cpu:
            torch.cuda.synchronize(self._device)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            named = next((line for line in lines if line.startswith("model name")), "")
    except OSError:
        named = ""
    return named.partition(":")[2].strip() or "CPU"
