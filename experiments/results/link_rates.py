"""The rates at which links sent, from the counters of their ports."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from controller.flow import Level, PortId
from controller.units import NS_PER_S
from testbed.columns import batches_of, numbers
from testbed.record import LinkSample

IntArray = npt.NDArray[np.int64]

COUNTER_COLUMNS: Final = ("port", "time_ns", "sent_wire_bytes")
_NONE: Final = np.empty(0, dtype=np.int64)


class LinkRate(msgspec.Struct, frozen=True):
    """Mean rates of one port between its samples. `time_ns` has shape (n + 1,), `bps` (n, 8), by level."""

    time_ns: IntArray
    bps: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What ports had sent, in the order of the samples: sample `i` is of port `names[ports[i]]` at
    `time_ns[i]`. `sent_bytes` has shape (n, 8), by level."""

    names: Sequence[PortId]
    ports: IntArray
    time_ns: IntArray
    sent_bytes: IntArray

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Counters":
        """Return the chosen samples."""
        return Counters(
            names=self.names,
            ports=self.ports[chosen],
            time_ns=self.time_ns[chosen],
            sent_bytes=self.sent_bytes[chosen],
        )


def counters(samples: Iterable[LinkSample]) -> Counters:
    """Return the counters in `samples`."""
    batches = batches_of(samples, ["time_ns", "port", "sent_bytes"])
    return _joined(
        (batch.column("port"), numbers(batch, "time_ns"), batch.column("sent_bytes").flatten().to_numpy())
        for batch in batches
    )


def counters_in_table(parts: Iterable[pa.Table]) -> Counters:
    """Return the counters in `parts` of `links.parquet`, with all levels of each sample.

    The parts need the columns of `COUNTER_COLUMNS`.
    """
    return _joined(
        (
            part["port"].combine_chunks()[:: len(Level)].dictionary_encode(),
            part["time_ns"].to_numpy()[:: len(Level)],
            part["sent_wire_bytes"].to_numpy(),
        )
        for part in parts
    )


def _joined(parts: Iterable[tuple[pa.DictionaryArray, IntArray, IntArray]]) -> Counters:
    """Join samples: their ports, their times, and what was sent, level by level."""
    numbered: dict[PortId, int] = {}
    ports, times, sent = [_NONE], [_NONE], [_NONE]
    for port, time_ns, sent_bytes in parts:
        names, places = port.dictionary.to_pylist(), port.indices.to_numpy()
        number = np.zeros(len(names), dtype=np.int64)
        for i in np.unique(places).tolist():
            number[i] = numbered.setdefault(names[i], len(numbered))
        ports.append(number[places])
        times.append(time_ns)
        sent.append(sent_bytes)
    return Counters(
        names=list(numbered),
        ports=np.concatenate(ports),
        time_ns=np.concatenate(times),
        sent_bytes=np.concatenate(sent).reshape(-1, len(Level)),
    )


def link_rates(found: Counters, bytes_scale: float) -> dict[PortId, LinkRate]:
    """Return rates in *model* bits/s from the wire counters of ports, framing included.

    A wire byte is `1 / bytes_scale` model bytes. The times of samples are already model time. A port may lack
    samples that others have; its rate between two of its own is the mean. Ports with fewer than two samples
    have no rate and are left out.
    """
    order = np.lexsort((found.time_ns, found.ports))
    ports, times = found.ports[order], found.time_ns[order]
    later = np.append(True, (np.diff(ports) != 0) | (np.diff(times) > 0))[: len(order)]
    ports, times, sent_bytes = ports[later], times[later], found.sent_bytes[order[later]]
    between = ports[1:] == ports[:-1]  # a sample and the next one are of one port
    seconds = np.where(between, np.diff(times), NS_PER_S) / NS_PER_S
    bps = np.diff(sent_bytes.astype(np.float64), axis=0) * 8 / bytes_scale / seconds[:, None]
    ends = np.searchsorted(ports, np.arange(len(found.names) + 1)).tolist()
    return {
        port: LinkRate(times[begin:end], bps[begin : end - 1])
        for port, (begin, end) in zip(found.names, pairwise(ends), strict=True)
        if end - begin >= 2
    }
