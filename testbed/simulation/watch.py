"""Samples of what the ports have sent, taken at up to a few hundred moments of a run."""

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
from typing import overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from controller.flow import PortId
from testbed.arrow_rows import schema_of
from testbed.columns import BLOCK_ROWS
from testbed.record import LinkSample
from testbed.simulation._core import Core

_MOST_SAMPLES = 400
_FEWEST_SAMPLES = 20
_MOST_ROWS = 400_000  # samples times ports
_FIRST_INTERVAL_NS = 1_000_000


class LinkWatch:
    """Samples what every port has sent, at up to a few hundred moments, however long the run is.

    When there are too many samples, every other one is dropped, and the interval doubles. With thousands of
    ports there are fewer samples.
    """

    def __init__(self, names: Sequence[PortId]) -> None:
        self._names = names
        self._interval_ns = _FIRST_INTERVAL_NS
        self._most = min(_MOST_SAMPLES, max(_FEWEST_SAMPLES, _MOST_ROWS // max(1, len(names))))
        self._samples: list[tuple[int, npt.NDArray[np.float64]]] = []
        self._core: Core

    def serve(self, core: Core) -> None:
        """Watch the ports of `core` from now on."""
        self._core = core

    def look(self, now_ns: int) -> int:
        """Take a sample, and return when the next one is due. The rates of `core` hold for `now_ns`."""
        self._samples.append((now_ns, self._core.sent_bytes()))
        if len(self._samples) > self._most:
            del self._samples[1::2]
            self._interval_ns *= 2
        return self._samples[-1][0] + self._interval_ns

    def rows(self, end_ns: int) -> Sequence[LinkSample]:
        """All samples and one of the end: for each moment, a row for each port whose counters move."""
        self._samples.append((end_ns, self._core.sent_bytes()))
        return moving_samples(self._names, self._samples)


def moving_samples(
    names: Sequence[PortId], samples: Sequence[tuple[int, npt.NDArray[np.float64]]]
) -> "LinkSamples":
    """Return a row for each port at each of `samples`, which have the time and what the ports had sent.

    A port has no row where nothing has changed since its sample before and nothing changes until the next.
    So between two rows of a port, its counters grow evenly or not at all, as if all rows were there. At the
    first moment and at the last, all ports have one.
    """
    times, ports, sent = [], [], []
    always = came = np.ones(len(names), dtype=np.bool_)
    counts = (np.rint(levels).astype(np.int64) for _, levels in samples)
    for (time_ns, _), (levels, after) in zip(samples, pairwise(chain(counts, (None,))), strict=True):
        assert levels is not None
        goes = always if after is None else (after != levels).any(axis=1)
        (kept,) = np.nonzero(came | goes)
        times.append(np.full(len(kept), time_ns))
        ports.append(kept)
        sent.append(levels[kept])
        came = goes
    return LinkSamples(names, np.concatenate(times), np.concatenate(ports), np.concatenate(sent))


class LinkSamples(Sequence[LinkSample]):
    """Samples in arrays. Rows are made when they are looked at.

    Sample `i` is of port `names[ports[i]]` at `times_ns[i]`, which had sent `sent[i]` by level.
    """

    def __init__(
        self,
        names: Sequence[PortId],
        times_ns: npt.NDArray[np.int64],
        ports: npt.NDArray[np.int64],
        sent: npt.NDArray[np.int64],
    ) -> None:
        self._names = names
        self._times_ns = times_ns
        self._ports = ports
        self._sent = sent

    def batches(self, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
        """Yield the samples in columns, as `testbed.columns.ColumnSpool` does."""
        names = pa.array(self._names, pa.string())
        schema = schema_of(LinkSample)
        for begin in range(0, len(self), BLOCK_ROWS):
            times_ns = self._times_ns[begin : begin + BLOCK_ROWS]
            ports = pa.array(self._ports[begin : begin + BLOCK_ROWS], pa.int32())
            sent = self._sent[begin : begin + BLOCK_ROWS]
            none = _lists(np.zeros_like(sent))
            arrays = [
                pa.array(times_ns),
                pa.DictionaryArray.from_arrays(ports, names),
                _lists(sent),
                none,
                none,
            ]
            batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
            yield batch if columns is None else batch.select(list(columns))

    def __len__(self) -> int:
        return len(self._times_ns)

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
        levels = tuple(self._sent[at].tolist())
        none = (0,) * len(levels)
        return LinkSample(
            time_ns=int(self._times_ns[at]),
            port=self._names[self._ports[at]],
            sent_bytes=levels,
            backlog_bytes=none,
            drops=none,
        )

    def __iter__(self) -> Iterator[LinkSample]:
        return map(self.__getitem__, range(len(self)))


def _lists(values: npt.NDArray[np.int64]) -> pa.Array:
    """Return a list for each row of a table of numbers."""
    rows, width = values.shape
    return pa.ListArray.from_arrays(
        pa.array(np.arange(rows + 1) * width, pa.int32()), pa.array(values.ravel())
    )
