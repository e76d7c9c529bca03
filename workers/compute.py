"""The compute of a layer: a timed wait of the modelled duration, or real matrix products."""

import time

import torch

from workers.clock import Clock
from workers.options import ComputeMode
from workers.streams import Stream

_SIDE = {"cpu": 256, "cuda": 4096}
_CALIBRATION_PRODUCTS = 20


class TimedCompute:
    """Waits for the modelled duration, which leaves the CPU free for the network."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def run(self, seconds: float) -> None:
        self._clock.wait_for(seconds)


class MatmulCompute:
    """Keeps the device busy with square matrix products for about the modelled duration.

    They are on a stream of their own, beside the copies of transfers. The number of products follows from a
    measurement at start-up, when the device is idle. On a device that others use as well, the same products
    take longer, as a real layer would.
    """

    def __init__(self, device: torch.device, time_dilation: float) -> None:
        self._dilation = time_dilation
        side = _SIDE["cpu" if device.type == "cpu" else "cuda"]
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        self._a = torch.ones((side, side), dtype=dtype, device=device)
        self._out = torch.empty_like(self._a)
        self._stream = Stream(device)
        self._products(3)
        start = time.perf_counter()
        self._products(_CALIBRATION_PRODUCTS)
        self._seconds_per_product = (time.perf_counter() - start) / _CALIBRATION_PRODUCTS

    def run(self, seconds: float) -> None:
        self._products(max(1, round(seconds * self._dilation / self._seconds_per_product)))

    def _products(self, count: int) -> None:
        with self._stream.here():
            for _ in range(count):
                torch.mm(self._a, self._a, out=self._out)


Compute = TimedCompute | MatmulCompute


def make_compute(mode: ComputeMode, clock: Clock, device: torch.device, time_dilation: float) -> Compute:
    match mode:
        case ComputeMode.TIMED | ComputeMode.MODEL:  # of real layers, what is left of the modelled time
            return TimedCompute(clock)
        case ComputeMode.MATMUL:
            return MatmulCompute(device, time_dilation)
