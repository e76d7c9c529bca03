"""Samples of what the ports have sent, taken at up to a few hundred moments of a run."""

from collections.abc import Iterator, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from controller.flow import Level, PortId
from testbed.record import LinkSample
from testbed.simulation.links.network import FluidNetwork

_MOST_SAMPLES = 400
_FEWEST_SAMPLES = 20
_MOST_ROWS = 400_000  # samples times ports
_FIRST_INTERVAL_NS = 1_000_000


class LinkWatch:
    """Samples what every port has sent, at up to a few hundred moments, however long the run is.

    When there are too many samples, every other one is dropped, and the interval doubles. With thousands of
    ports there are fewer samples.
    """

    def __init__(self, network: FluidNetwork) -> None:
        self._network = network
        self._interval_ns = _FIRST_INTERVAL_NS
        self._due_ns = 0
        self._most = min(_MOST_SAMPLES, max(_FEWEST_SAMPLES, _MOST_ROWS // max(1, len(network.names))))
        self._samples: list[tuple[int, npt.NDArray[np.float64]]] = []

    def look(self, now_ns: int) -> bool:
        """Take a sample if one is due, and return whether it was. Call `settle` of the network before."""
        if now_ns < self._due_ns:
            return False
        self._samples.append((now_ns, self._network.sent_bytes(now_ns)))
        if len(self._samples) > self._most:
            del self._samples[1::2]
            self._interval_ns *= 2
        self._due_ns = self._samples[-1][0] + self._interval_ns
        return True

    def rows(self, end_ns: int) -> Sequence[LinkSample]:
        """All samples and one of the end: for each moment, a row for each port."""
        self._samples.append((end_ns, self._network.sent_bytes(end_ns)))
        return LinkSamples(self._network.names, self._samples)


class LinkSamples(Sequence[LinkSample]):
    """Samples of all ports at several moments. Rows are made when they are looked at."""

    def __init__(
        self, names: Sequence[PortId], samples: Sequence[tuple[int, npt.NDArray[np.float64]]]
    ) -> None:
        self._names = names
        self._samples = samples

    def __len__(self) -> int:
        return len(self._names) * len(self._samples)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinkSamples) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, at: int) -> LinkSample: ...
    @overload
    def __getitem__(self, at: slice) -> tuple[LinkSample, ...]: ...
    def __getitem__(self, at: int | slice) -> LinkSample | tuple[LinkSample, ...]:
        if isinstance(at, slice):
            return tuple(self[i] for i in range(*at.indices(len(self))))
        if not -len(self) <= at < len(self):
            raise IndexError(at)
        moment, port = divmod(at % len(self), len(self._names))
        time_ns, sent = self._samples[moment]
        return _sample(time_ns, self._names[port], sent[port])

    def __iter__(self) -> Iterator[LinkSample]:
        for time_ns, sent in self._samples:
            for name, levels in zip(self._names, sent, strict=True):
                yield _sample(time_ns, name, levels)


def _sample(time_ns: int, port: PortId, sent: npt.NDArray[np.float64]) -> LinkSample:
    none = (0,) * len(Level)
    levels = tuple(int(size) for size in np.rint(sent))
    return LinkSample(time_ns=time_ns, port=port, sent_bytes=levels, backlog_bytes=none, drops=none)
