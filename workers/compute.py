"""The compute of a layer: a timed wait of the modelled duration, or kernels that last about as long."""

from collections.abc import Callable

import torch

from workers.clock import Clock
from workers.layer_kernels import LayerKernels
from workers.layer_sizes import LayerSizes
from workers.options import ComputeMode
from workers.streams import Stream

_SIDE = {"cpu": 256, "cuda": 4096}
_WARM_UP_RUNS = 3
_CALIBRATION_RUNS = 20


class TimedCompute:
    """Waits for the modelled duration, which leaves the CPU free for the network."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def run(self, seconds: float, label: str) -> None:
        """Take `seconds` of model time."""
        self._clock.wait_for(seconds)


class Calibrated:
    """Kernels that are run as often as takes the modelled duration.

    They are on a stream of their own, beside the copies of transfers. How long a run takes was measured at
    start-up, when the device was idle. On a device that others use as well, the same runs take longer, as a
    real layer would.
    """

    def __init__(self, stream: Stream, kernels: Callable[[], object]) -> None:
        self._stream = stream
        self._kernels = kernels
        self._run(_WARM_UP_RUNS)
        self.seconds_per_run = self._run(_CALIBRATION_RUNS) / _CALIBRATION_RUNS

    def run(self, wall_s: float) -> float:
        """Keep the device busy for about `wall_s`. Returns for how long it was busy, as it has timed it."""
        return self._run(max(1, round(wall_s / self.seconds_per_run)))

    def _run(self, count: int) -> float:
        def work() -> None:
            for _ in range(count):
                self._kernels()

        mark = self._stream.then(work, "compute", timed=True)
        mark.wait()
        return mark.seconds


class MatmulCompute:
    """Keeps the device busy with square matrix products for about the modelled duration."""

    def __init__(self, device: torch.device, time_dilation: float) -> None:
        self._dilation = time_dilation
        side = _SIDE["cpu" if device.type == "cpu" else "cuda"]
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        a = torch.ones((side, side), dtype=dtype, device=device)
        out = torch.empty_like(a)
        self._products = Calibrated(Stream(device), lambda: torch.mm(a, a, out=out))

    def run(self, seconds: float, label: str) -> float:
        """Compute for about `seconds` of model time. Returns the wall time of the device."""
        return self._products.run(seconds * self._dilation)


class KernelCompute:
    """Keeps the device busy with kernels of the shapes of the layer for about the modelled duration.

    A step of attention runs attention and its projections, and any other a feed-forward. `stream` is a
    stream to compute on, for tests; None: one of its own.
    """

    def __init__(
        self, device: torch.device, time_dilation: float, sizes: LayerSizes, stream: Stream | None = None
    ) -> None:
        self._dilation = time_dilation
        layer = LayerKernels(sizes, device)
        stream = Stream(device) if stream is None else stream
        self._attention = Calibrated(stream, layer.attention)
        self._feed_forward = Calibrated(stream, layer.feed_forward)

    def run(self, seconds: float, label: str) -> float:
        """Compute for about `seconds` of model time. Returns the wall time of the device."""
        kernels = self._feed_forward if label in ("mlp", "experts") else self._attention
        return kernels.run(seconds * self._dilation)


Compute = TimedCompute | MatmulCompute | KernelCompute


def make_compute(
    mode: ComputeMode, clock: Clock, device: torch.device, time_dilation: float, sizes: LayerSizes | None
) -> Compute:
    """What computes in `mode`. `KERNELS` needs `sizes`."""
    match mode:
        case ComputeMode.TIMED | ComputeMode.MODEL:  # of real layers, what is left of the modelled time
            return TimedCompute(clock)
        case ComputeMode.MATMUL:
            return MatmulCompute(device, time_dilation)
        case ComputeMode.KERNELS:
            if sizes is None:
                raise ValueError("kernels of a layer need its sizes")
            return KernelCompute(device, time_dilation, sizes)
