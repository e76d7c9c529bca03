"""What the queues of a run counted, from sample to sample: what checks need in memory, the rest on disk."""

from collections.abc import Iterable, Sequence

import msgspec

from controller.flow import PortId
from testbed.columns import ColumnSpool
from testbed.emulation.queues import PortCounters
from testbed.record import LinkSample


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """The counters of all ports at one moment. `wall_ns` is the middle of the reading (monotonic)."""

    wall_ns: int
    time_ns: int
    ports: dict[PortId, PortCounters]


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What happened between two samples: which ports sent something, packets sent, packets dropped.

    The times are those of the later sample. `moved` has a bit for each port (`SampleLog.bits`).
    """

    wall_ns: int
    time_ns: int
    moved: int
    packets: int
    drops: int


class SampleLog:
    """Takes samples in. The first one is where everything counts from: its step is empty."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self.steps: list[Step] = []
        self.links: ColumnSpool[LinkSample] = ColumnSpool(LinkSample, block_rows=1024)
        """All samples, port by port. What was sent and dropped before the first one does not count."""
        self._zero: dict[PortId, PortCounters] = {}
        self._bit: dict[PortId, int] = {}
        self._last: Sample | None = None
        for sample in samples:
            self.add(sample)

    def add(self, sample: Sample) -> None:
        before = sample.ports if self._last is None else self._last.ports
        if self._last is None:
            self._zero = sample.ports
            self._bit = {port: 1 << i for i, port in enumerate(sample.ports)}
        ports = sample.ports.items()
        moved = self.bits(port for port, now in ports if now.sent_bytes != before[port].sent_bytes)
        self.steps.append(
            Step(
                wall_ns=sample.wall_ns,
                time_ns=sample.time_ns,
                moved=moved,
                packets=sum(sum(now.packets) - sum(before[port].packets) for port, now in ports),
                drops=sum(sum(now.drops) - sum(before[port].drops) for port, now in ports),
            )
        )
        for port, now in ports:
            zero = self._zero[port]
            self.links.append(
                LinkSample(
                    time_ns=sample.time_ns,
                    port=port,
                    sent_bytes=_since(now.sent_bytes, zero.sent_bytes),
                    backlog_bytes=now.backlog_bytes,
                    drops=_since(now.drops, zero.drops),
                )
            )
        self._last = sample

    def bits(self, ports: Iterable[PortId]) -> int:
        """The bits of these ports. A port that no sample has has none."""
        bits = 0
        for port in ports:
            bits |= self._bit.get(port, 0)
        return bits


def _since(now: Sequence[int], zero: Sequence[int]) -> tuple[int, ...]:
    return tuple(n - z for n, z in zip(now, zero, strict=True))
