"""Samples every queue of the fabric during a run, a few times a second."""

import itertools
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from controller.flow import Level, PortId
from controller.units import NS_PER_S
from testbed.emulation.asked import Window
from testbed.emulation.network import Network
from testbed.emulation.queues import PortCounters, Sampler
from testbed.emulation.samples import Sample, SampleLog
from testbed.fabric import RunFailed
from testbed.live import PortNow

INTERVAL_S = 0.25
_SHOT_S = 0.006


class BusyShot(msgspec.Struct, frozen=True, kw_only=True):
    """What a port sent during a few milliseconds in which it always had something to send.

    Its backlog at the first reading was more than the line can carry until the second one. So it should
    have sent `line_bytes`. It did send `sent_bytes`.
    """

    port: PortId
    sent_bytes: int
    line_bytes: float


class Segments(NamedTuple):
    """TCP segments of a server so far: sent, of those retransmitted, and received for the first time."""

    sent: int
    again: int
    received: int


def segments_in(net: Path) -> Segments:
    """Read the counters of TCP in `net`, a folder as `/proc/PID/net`.

    A segment that is received again does not count: while its acknowledgement is lost, a sender repeats it
    for ever, and nothing gets on.
    """
    usual, more = _counters(net / "snmp", "Tcp"), _counters(net / "netstat", "TcpExt")
    copies = more.get("DelayedACKLost", 0)  # segments all of whose bytes were there before
    return Segments(usual["OutSegs"], usual["RetransSegs"], usual["InSegs"] - copies)


def _counters(path: Path, name: str) -> dict[str, int]:
    """The counters of a protocol: a line of names, and a line of values."""
    lines = [line.split() for line in path.read_text().splitlines() if line.startswith(f"{name}:")]
    names, values = lines
    return dict(zip(names[1:], map(int, values[1:]), strict=True))


def port_now(
    port: PortId,
    before: PortCounters,
    after: PortCounters,
    *,
    line_bytes: float,
    seconds: float,
    time_dilation: float,
) -> PortNow:
    """Return what `port` sent between two readings, in which its line could send `line_bytes`."""
    sent = (now - then for then, now in zip(before.sent_bytes, after.sent_bytes, strict=True))
    backlog_wall_s = sum(after.backlog_bytes) / line_bytes * seconds
    return PortNow(
        port=port,
        shares=tuple(round(level / line_bytes, 4) for level in sent),
        backlog_ns=round(backlog_wall_s / time_dilation * NS_PER_S),
    )


def _flow_bytes(counters: PortCounters) -> int:
    """What a port has sent on the levels of flows: everything but acknowledgements."""
    return sum(counters.sent_bytes) - counters.sent_bytes[Level.CONTROL]


class LinkMonitor:
    """Samples queues in a thread, and reads TCP retransmissions per server before and after the run."""

    def __init__(self, net: Network) -> None:
        self._net = net
        self._ports = tuple(net.devices)
        self._sampler = Sampler([net.devices[port] for port in self._ports])
        self.log = SampleLog()
        self._newest: tuple[Sample, ...] = ()
        self._sent_wall_ns: dict[PortId, int] = {}
        """When each port was last seen to have sent a byte of a flow."""
        self.busy: list[BusyShot] = []
        self.received_segments = 0
        """Segments that TCP has received on all servers, as of the last sample. Neither lost ones nor copies
        of what was there already count."""
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="link monitor", daemon=True)
        self._zero_wall_ns = 0
        self._dilation = 1.0
        self._segments: list[tuple[int, int, int]] = []

    def start(self, zero_wall_ns: int, time_dilation: float) -> None:
        self._zero_wall_ns = zero_wall_ns
        self._dilation = time_dilation
        self._note_segments()
        self._thread.start()

    def check(self) -> None:
        """Raise `RunFailed` if the queues could not be read."""
        if self._failure is not None:
            what = f"{type(self._failure).__name__}: {self._failure}"
            raise RunFailed(f"the queues can no longer be sampled: {what}") from self._failure

    def now(self) -> tuple[PortNow, ...]:
        """Return what each port sent between the last two samples, the busiest first. Empty before them."""
        newest = self._newest
        if len(newest) < 2:
            return ()
        before, last = newest
        seconds = (last.wall_ns - before.wall_ns) / NS_PER_S
        ports = [
            port_now(
                port,
                before.ports[port],
                last.ports[port],
                line_bytes=self._net.trees[port].line_bps / 8 * seconds,
                seconds=seconds,
                time_dilation=self._dilation,
            )
            for port in self._ports
        ]
        return tuple(sorted(ports, key=lambda port: (-port.busy, port.port)))

    def silent_ports(self, since_wall_ns: int) -> set[PortId]:
        """The ports that have sent no byte of a flow since then."""
        return {port for port in self._ports if self._sent_wall_ns.get(port, 0) < since_wall_ns}

    def stop(self) -> SampleLog:
        """Take a last sample and return what was counted.

        Raises `RunFailed` if the queues could not be read.
        """
        self._stop.set()
        self._thread.join()
        self.check()
        self._note_segments()
        return self.log

    def segments(self, without: Sequence[Window] = ()) -> tuple[int, int]:
        """Return the TCP segments that all servers sent during the run, and those retransmitted.

        What was sent in the intervals between samples that overlap a window of `without` does not count.
        """
        counted = [
            (now[1] - then[1], now[2] - then[2])
            for then, now in itertools.pairwise(self._segments)
            if not any(window.overlaps(then[0], now[0]) for window in without)
        ]
        return sum(sent for sent, _ in counted), sum(again for _, again in counted)

    def _run(self) -> None:
        try:
            while True:
                last = self._stop.is_set()
                sample = self._sample()
                self._take(sample)
                self._note_segments()
                if last:
                    return
                self._look_closely(sample)
                self._stop.wait(INTERVAL_S)
        except BaseException as error:
            self._failure = error

    def _take(self, sample: Sample) -> None:
        for port, now in sample.ports.items():
            before = self._newest[-1].ports[port] if self._newest else now
            if _flow_bytes(now) != _flow_bytes(before):
                self._sent_wall_ns[port] = sample.wall_ns
        self._newest = (*self._newest[-1:], sample)
        self.log.add(sample)

    def _look_closely(self, sample: Sample) -> None:
        """Measure the port with the longest backlog (in time) over the next few milliseconds."""

        def backlog_s(port: PortId, counters: PortCounters) -> float:
            return sum(counters.backlog_bytes) * 8 / self._net.trees[port].line_bps

        port = max(sample.ports, key=lambda p: backlog_s(p, sample.ports[p]))
        if backlog_s(port, sample.ports[port]) < _SHOT_S:
            return
        tree = self._net.trees[port]
        device = self._net.devices[port]
        first_ns = time.monotonic_ns()
        first = self._sampler.sample_one(device)
        time.sleep(_SHOT_S)
        second_ns = time.monotonic_ns()
        second = self._sampler.sample_one(device)
        seconds = (second_ns - first_ns) / NS_PER_S  # both readings follow their timestamps by the same delay
        if self._net.trees[port] is tree and backlog_s(port, first) > seconds:
            self.busy.append(
                BusyShot(
                    port=port,
                    sent_bytes=sum(second.sent_bytes) - sum(first.sent_bytes),
                    line_bytes=tree.line_bps / 8 * seconds,
                )
            )

    def _sample(self) -> Sample:
        before = time.monotonic_ns()
        counters = self._sampler.sample()
        wall_ns = (before + time.monotonic_ns()) // 2
        return Sample(
            wall_ns=wall_ns,
            time_ns=round((wall_ns - self._zero_wall_ns) / self._dilation),
            ports={port: counters[self._net.devices[port]] for port in self._ports},
        )

    def _note_segments(self) -> None:
        """Read the segments of all servers' namespaces, and keep their sums."""
        counts = [segments_in(Path(f"/proc/{pid}/net")) for pid in self._net.host_pids.values()]
        self.received_segments = sum(one.received for one in counts)
        sent, again = sum(one.sent for one in counts), sum(one.again for one in counts)
        self._segments.append((time.monotonic_ns(), sent, again))
