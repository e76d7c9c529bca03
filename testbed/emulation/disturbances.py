"""What disturbed a run on its way: processes that paused, links that were down, flows that got nothing.

The other fidelity checks are shares and percentiles over the whole run. A few seconds hardly change those,
but they can double the time of the requests that they meet. Each check here names its culprit.
"""

import bisect
from collections.abc import Mapping, Sequence

from controller.flow import Stage
from controller.pulse import Pause
from controller.units import NS_PER_S
from testbed.coordinator.delays import WallYardstick
from testbed.coordinator.lapses import (
    RUN_AGAIN,
    WallClock,
    latest_wakeup,
    named,
    pauses_check,
    slowest_permit,
)
from testbed.coordinator.outages import Down
from testbed.emulation.monitor import Sample
from testbed.record import Check, FlowRow
from testbed.serving.yardsticks import Yardstick
from workers.protocol import Records

SILENCE_BOUND_MS = 1000.0
"""Not relative: the samples that it is measured with are 250 ms apart, whatever the scale."""


def disturbances(
    *,
    pauses: Mapping[str, Pause],
    outages: Sequence[Down],
    records: Sequence[Records],
    flows: Sequence[FlowRow],
    samples: Sequence[Sample],
    clock: WallClock,
    whole: Yardstick | None,
) -> list[Check]:
    """The checks. `pauses` has the longest pause of each process by its name, `outages` the longest of each
    link, the longest first. `whole` is what a single moment delays."""
    against = WallYardstick(of=whole, time_dilation=clock.time_dilation)
    return [
        pauses_check(pauses, clock, against),
        _outages(outages, clock),
        _silence(flows, samples, clock),
        slowest_permit(records, against),
        latest_wakeup(records, against),
    ]


def _outages(outages: Sequence[Down], clock: WallClock) -> Check:
    down = [f"{one.link} was down {clock.lasted(one.begin_wall_ns, one.wall_ns)}" for one in outages]
    longest_ms = outages[0].wall_ns / 1e6 if outages else 0.0
    advice = f"{named(down)}. A run takes no link down: find out what did."
    return _at_most("longest time a link was down", longest_ms, 0.0, advice)


def _silence(flows: Sequence[FlowRow], samples: Sequence[Sample], clock: WallClock) -> Check:
    """The longest time in which a permitted flow was not done and no port on its path sent a byte.

    While a flow waits behind others, some port on its path sends those. Shares of collectives wait for the
    other ranks, too, so they do not count. A pause counts from sample to sample.
    """
    times = [sample.time_ns for sample in samples]
    longest_ns, culprit = 0, ""
    for flow in flows:
        if flow.stage is Stage.COLLECTIVE or not flow.path:
            continue
        first = bisect.bisect_left(times, flow.permit_ns)
        last = bisect.bisect_right(times, flow.finish_ns) - 1
        quiet_since = first
        for i in range(first + 1, last + 1):
            before, after = samples[i - 1].ports, samples[i].ports
            if any(before[port].sent_bytes != after[port].sent_bytes for port in flow.path):
                quiet_since = i
            elif times[i] - times[quiet_since] > longest_ns:
                longest_ns = times[i] - times[quiet_since]
                since_s = times[quiet_since] / NS_PER_S
                culprit = f"flow {flow.id} on {', '.join(flow.path)} from {since_s:.3f} s of model time on"
    advice = f"{culprit}: nothing on its path sent a byte, though it had its permit. {RUN_AGAIN}"
    value = clock.wall_ms(longest_ns) if len(samples) > 1 else None
    return _at_most("longest time without delivery while a flow was due", value, SILENCE_BOUND_MS, advice)


def _at_most(name: str, value_ms: float | None, bound_ms: float, advice: str) -> Check:
    ok = value_ms is None or value_ms <= bound_ms
    return Check(
        name=name, value=value_ms, bound=f"<= {bound_ms:g}", unit="ms", ok=ok, advice="" if ok else advice
    )
