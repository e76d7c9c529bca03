"""Fidelity checks: measures of whether a run is faithful, their bounds, and what to change.

An overloaded machine does not fail. It delivers less than the links promise, and then all policies look
alike. So each run measures what its numbers depend on, and every output says whether the bounds were kept.
"""

import itertools
import statistics
import threading
from collections.abc import Sequence

import psutil

from testbed.coordinator.checks import IDLE_BOUND, PROBE_BOUND, RETRANSMIT_BOUND, at_least, at_most
from testbed.coordinator.cpu_wait import CpuWait
from testbed.coordinator.delays import WallYardstick, cpu_check, permit_checks, wakeup_check
from testbed.coordinator.ranks import ProbeResult
from testbed.emulation.asked import Window
from testbed.emulation.monitor import BusyShot
from testbed.emulation.network import MTU
from testbed.emulation.samples import SampleLog
from testbed.fabric import RunFailed
from testbed.record import Check, Fidelity
from testbed.serving.yardsticks import Yardsticks

PAYLOAD_SHARE = (MTU - 52) / (MTU + 14)
"""Payload of a full packet over its bytes at the queue: with Ethernet, IP and TCP headers, timestamps."""

BUSY_BOUND = 0.90
DROP_BOUND = 1e-4

_BUSY_SHOTS = 8  # fewer are not judged
_HEADROOM_SLOWER = 2.0  # what links that are half as fast leave to the CPU was not measured; it is enough


class CpuMeter:
    """Share of CPU time left idle, sampled once a second. Stolen time counts as busy."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cpu meter", daemon=True)
        self._idle: list[float] = []
        self._failure: BaseException | None = None

    def check(self) -> None:
        """Raise `RunFailed` if idle CPU time could not be read."""
        if self._failure is not None:
            what = f"{type(self._failure).__name__}: {self._failure}"
            raise RunFailed(f"idle CPU time can no longer be read: {what}") from self._failure

    def start(self) -> None:
        psutil.cpu_times_percent(None)
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()
        self.check()

    def _run(self) -> None:
        try:
            while not self._stop.wait(1.0):
                self._idle.append(psutil.cpu_times_percent(None).idle / 100)
        except BaseException as error:
            self._failure = error

    @property
    def mean_idle(self) -> float:
        """Mean idle share, 0 to 1. For a run shorter than a second: the share since the last reading."""
        return statistics.fmean(self._idle) if self._idle else psutil.cpu_times_percent(None).idle / 100


def judge(
    *,
    probes: Sequence[ProbeResult],
    samples: SampleLog,
    busy: Sequence[BusyShot],
    cpu: CpuMeter,
    cpu_wait: CpuWait | None,
    permit_ms: Sequence[float],
    late_ms: Sequence[float],
    segments: tuple[int, int],
    yardsticks: Yardsticks,
    time_dilation: float,
    more: Sequence[Check] = (),
    upset: Sequence[Window] = (),
) -> Fidelity:
    """Check a run. It is faithful if every measure that could be taken is within its bound.

    `cpu_wait` is the longest mean wait of a process for the CPU. If the kernel does not count waits, idle CPU
    time stands for it. `segments` gives TCP segments sent, and of those retransmitted. `yardsticks` are those
    of the job. `more` are checks that were made elsewhere. Drops in the windows of `upset` do not count: the
    scenario asked for them.
    """
    slower = (
        "slow the links down (a lower scale.link_mbps, or scale.bytes_scale where that is given), use fewer"
        " servers, or free up the machine"
    )
    transfer = WallYardstick(of=yardsticks.transfer, time_dilation=time_dilation)
    compute = WallYardstick(of=yardsticks.compute, time_dilation=time_dilation)
    delivered = delivered_share(probes)
    while_busy = _busy_delivery(busy)
    drops, packets = _drops(samples, upset)
    sent, again = segments
    checks = [
        at_least(
            "delivered rate, all links probed at once",
            delivered,
            PROBE_BOUND,
            "of nominal",
            slower,
            _rate_factor(delivered, PROBE_BOUND),
        ),
        at_least(
            "delivered rate while a queue was busy",
            while_busy,
            BUSY_BOUND,
            "of nominal",
            slower,
            _rate_factor(while_busy, BUSY_BOUND),
        ),
        cpu_check(cpu_wait, transfer)
        if cpu_wait is not None
        else at_least("CPU headroom", cpu.mean_idle, IDLE_BOUND, "idle", slower, _HEADROOM_SLOWER),
        *permit_checks(permit_ms, transfer),
        at_most(
            "packets dropped",
            drops / packets if packets else None,
            DROP_BOUND,
            "of packets",
            "lower workers.lanes_s1 and workers.lanes_s3, so that fewer connections fill the queues",
        ),
        at_most(
            "TCP retransmits",
            again / sent if sent else None,
            RETRANSMIT_BOUND,
            "of segments",
            slower,
        ),
        wakeup_check(late_ms, compute),
        *more,
    ]
    return Fidelity(faithful=all(check.ok for check in checks), checks=tuple(checks))


def delivered_share(probes: Sequence[ProbeResult]) -> float | None:
    """The share of its part of the line rate that the slowest probed path delivered; None without probes."""
    return min((p.delivered_bps / p.nominal_bps / PAYLOAD_SHARE for p in probes), default=None)


def _busy_delivery(busy: Sequence[BusyShot]) -> float | None:
    """What busy ports sent over what their lines could carry, both summed over all shots.

    A port with packets waiting must send at line rate (work conservation). The shots are summed because a
    single one lasts milliseconds, so its share is noisy. `None` if there are too few to judge.
    """
    if len(busy) < _BUSY_SHOTS:
        return None
    return sum(shot.sent_bytes for shot in busy) / sum(shot.line_bytes for shot in busy)


def _drops(samples: SampleLog, upset: Sequence[Window]) -> tuple[int, int]:
    """Packets dropped, and packets sent, by all queues during the run, but for what `upset` excuses."""
    drops = packets = 0
    for then, now in itertools.pairwise(samples.steps):
        if any(window.overlaps(then.wall_ns, now.wall_ns) for window in upset):
            continue
        drops += now.drops
        packets += now.packets
    return drops, packets


def _rate_factor(share: float | None, bound: float) -> float:
    """By how much links would have to be slower for what was delivered to be `bound` of their rate."""
    return bound / share if share else 1.0
