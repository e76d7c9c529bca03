"""The rates at which links sent, from the counters of their ports."""

from collections import defaultdict
from collections.abc import Iterable

import msgspec
import numpy as np
import numpy.typing as npt

from controller.flow import PortId
from controller.units import NS_PER_S
from testbed.record import LinkSample


class LinkRate(msgspec.Struct, frozen=True):
    """Mean rates of one port between its samples. `time_ns` has shape (n + 1,), `bps` (n, 8), by level."""

    time_ns: npt.NDArray[np.int64]
    bps: npt.NDArray[np.float64]


def link_rates(samples: Iterable[LinkSample], bytes_scale: float) -> dict[PortId, LinkRate]:
    """Return rates in *model* bits/s from the wire counters of ports, framing included.

    A wire byte is `1 / bytes_scale` model bytes. The times of samples are already model time. Ports with
    fewer than two samples have no rate and are left out.
    """
    by_port: dict[PortId, list[LinkSample]] = defaultdict(list)
    for sample in samples:
        by_port[sample.port].append(sample)
    rates = {}
    for port, rows in by_port.items():
        times = np.array([row.time_ns for row in rows], dtype=np.int64)
        order = np.argsort(times, kind="stable")
        times = times[order]
        keep = np.concatenate(([True], np.diff(times) > 0))
        times = times[keep]
        if len(times) < 2:
            continue
        sent = np.array([row.sent_bytes for row in rows], dtype=np.float64)[order][keep]
        seconds = np.diff(times)[:, None] / NS_PER_S
        rates[port] = LinkRate(times, np.diff(sent, axis=0) * 8 / bytes_scale / seconds)
    return rates
