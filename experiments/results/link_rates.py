"""The rates at which links sent, from the counters of their ports."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt

from controller.flow import Level, PortId
from controller.units import NS_PER_S
from testbed.columns import batches_of, codes, numbers
from testbed.record import LinkSample


class LinkRate(msgspec.Struct, frozen=True):
    """Mean rates of one port between its samples. `time_ns` has shape (n + 1,), `bps` (n, 8), by level."""

    time_ns: npt.NDArray[np.int64]
    bps: npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """What ports had sent, in the order of the samples: sample `i` is of port `names[ports[i]]` at
    `time_ns[i]`. `sent_bytes` has shape (n, 8), by level."""

    names: Sequence[PortId]
    ports: npt.NDArray[np.int64]
    time_ns: npt.NDArray[np.int64]
    sent_bytes: npt.NDArray[np.int64]

    def where(self, chosen: npt.NDArray[np.bool_]) -> "Counters":
        """Return the chosen samples."""
        return Counters(
            names=self.names,
            ports=self.ports[chosen],
            time_ns=self.time_ns[chosen],
            sent_bytes=self.sent_bytes[chosen],
        )


def counters(samples: Iterable[LinkSample]) -> Counters:
    """Return the counters in `samples`. Ports are numbered in the order in which they come."""
    numbered: dict[PortId, int] = {}
    ports = [np.empty(0, dtype=np.int64)]
    times = [np.empty(0, dtype=np.int64)]
    sent = [np.empty((0, len(Level)), dtype=np.int64)]
    for batch in batches_of(samples, ["time_ns", "port", "sent_bytes"]):
        own, words = codes(batch, "port")
        _, first = np.unique(own, return_index=True)
        for code in own[np.sort(first)].tolist():
            numbered.setdefault(words[code], len(numbered))
        ports.append(np.array([numbered.get(word, -1) for word in words])[own])
        times.append(numbers(batch, "time_ns"))
        sent.append(batch.column("sent_bytes").flatten().to_numpy().reshape(-1, len(Level)))
    return Counters(
        names=list(numbered),
        ports=np.concatenate(ports),
        time_ns=np.concatenate(times),
        sent_bytes=np.concatenate(sent),
    )


def link_rates(samples: Iterable[LinkSample], bytes_scale: float) -> dict[PortId, LinkRate]:
    """Return the rates of `rates_of` from the counters in `samples`."""
    return rates_of(counters(samples), bytes_scale)


def rates_of(found: Counters, bytes_scale: float) -> dict[PortId, LinkRate]:
    """Return rates in *model* bits/s from the wire counters of ports, framing included.

    A wire byte is `1 / bytes_scale` model bytes. The times of samples are already model time. A port may lack
    samples that others have; its rate between two of its own is the mean. Ports with fewer than two samples
    have no rate and are left out.
    """
    order = np.lexsort((found.time_ns, found.ports))
    ends = np.searchsorted(found.ports[order], np.arange(len(found.names) + 1))
    rates = {}
    for port, (begin, end) in zip(found.names, pairwise(ends.tolist()), strict=True):
        times = found.time_ns[order[begin:end]]
        keep = np.concatenate(([True], np.diff(times) > 0))[: len(times)]
        times = times[keep]
        if len(times) < 2:
            continue
        sent = found.sent_bytes[order[begin:end]][keep].astype(np.float64)
        seconds = np.diff(times)[:, None] / NS_PER_S
        rates[port] = LinkRate(times, np.diff(sent, axis=0) * 8 / bytes_scale / seconds)
    return rates
