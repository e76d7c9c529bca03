"""Comparison of two runs of the same requests: their times side by side, and the errors. Pure.

The first run is called emulated and the second simulated. That is what they are, unless an emulated run is
compared with its own repetition. An error is simulated / emulated - 1. Durations are model nanoseconds
where a name says so, and model seconds elsewhere.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import msgspec
import numpy as np
import numpy.typing as npt

from controller.flow import SERVING_STAGES, Stage
from controller.units import NS_PER_S
from experiments.results.requests import meets_slo
from experiments.results.statistics import mean, percentile
from testbed.record import FlowRow, RequestRow

FLOW_ERROR = 0.15
"""A flow is right if its error is at most this, either way."""

FlowKey = tuple[str, ...]


class TimedFlow(msgspec.Struct, frozen=True):
    """How long a flow took from submit to finish, and its size."""

    stage: Stage
    took_ns: int
    size_bytes: int


class RunTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of a run that are compared: TTFT of completed requests, whether each request met its SLO,
    flows by what they carry."""

    ttft_ns: dict[int, int]
    met_slo: dict[int, bool]
    flows: dict[FlowKey, TimedFlow]


def run_times(requests: Iterable[RequestRow], flows: Iterable[FlowRow]) -> RunTimes:
    """Take the times of a run from its rows.

    The key of a transfer is its stage, request and layer, and its number (by id) among those that share
    these. Its id would not do, because it names the batch. A transfer without a request has its id as key.
    Background transfers are left out: how many there are depends on how long a run takes.
    A collective counts as one flow, from the last submit of a member to the last finish. The shares of
    members are not compared: if a member sends but receives nothing, its call returns when the kernel has
    its bytes, which says nothing about the network.
    """
    rows = list(requests)
    taken: dict[FlowKey, list[tuple[str, TimedFlow]]] = defaultdict(list)
    shares: dict[str, list[int]] = {}
    for flow in flows:
        if flow.stage is Stage.BACKGROUND:
            continue
        if flow.stage is Stage.COLLECTIVE and flow.coflow is not None:
            one = shares.setdefault(flow.coflow, [0, 0, 0])
            one[0] = max(one[0], flow.submit_ns)
            one[1] = max(one[1], flow.finish_ns)
            one[2] += flow.size_bytes
            continue
        name = (flow.id,) if flow.request is None else (str(flow.request), str(flow.layer))
        timed = TimedFlow(flow.stage, flow.finish_ns - flow.submit_ns, flow.size_bytes)
        taken[(flow.stage.value, *name)].append((flow.id, timed))
    found: dict[FlowKey, TimedFlow] = {}
    for key, same in taken.items():
        for number, (_, timed) in enumerate(sorted(same, key=lambda item: item[0])):
            found[(*key, str(number))] = timed
    for coflow, (ready, last, size) in shares.items():
        found[Stage.COLLECTIVE.value, coflow] = TimedFlow(Stage.COLLECTIVE, last - ready, size)
    return RunTimes(
        ttft_ns={row.request: row.ttft_ns for row in rows if row.ttft_ns is not None},
        met_slo={row.request: meets_slo(row) for row in rows},
        flows=found,
    )


class Pair(msgspec.Struct, frozen=True):
    """A number of both runs; None for a run that does not have it."""

    emulated: float | None
    simulated: float | None

    @property
    def error(self) -> float | None:
        if self.emulated is None or self.simulated is None or self.emulated == 0:
            return None
        return self.simulated / self.emulated - 1


class StageTimes(msgspec.Struct, frozen=True, kw_only=True):
    """The flows of a stage. `mean_s` is the mean time from submit to finish, over all flows of each run.

    `p10`, `p50` and `p90` are percentiles of the errors of the `matched` flows, which both runs have;
    `within` is the share of these that are right.
    """

    stage: str
    mean_s: Pair
    matched: int
    only_emulated: int
    only_simulated: int
    p10: float | None
    p50: float | None
    p90: float | None
    within: float | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two runs side by side. `matched` of the `flows` emulated flows are in both runs; of these, the share
    `within` is right."""

    requests: int
    ttft_mean_s: Pair
    ttft_p50_s: Pair
    ttft_p99_s: Pair
    slo_attainment: Pair
    cct_mean_s: Pair
    stages: tuple[StageTimes, ...]
    flows: int
    matched: int
    within: float | None


class Matched(msgspec.Struct, frozen=True, kw_only=True):
    """The flows that both runs have with the same size. All fields have one entry per flow."""

    stages: tuple[Stage, ...]
    emulated_ns: npt.NDArray[np.int64]
    simulated_ns: npt.NDArray[np.int64]

    def of(self, stage: Stage) -> "Matched":
        chosen = [i for i, one in enumerate(self.stages) if one is stage]
        return Matched(
            stages=(stage,) * len(chosen),
            emulated_ns=self.emulated_ns[chosen],
            simulated_ns=self.simulated_ns[chosen],
        )

    @property
    def errors(self) -> npt.NDArray[np.float64]:
        """The error of each flow: 0 if it took no time in either run, infinite if it took no time in the
        emulated run only."""
        emulated, simulated = self.emulated_ns.astype(float), self.simulated_ns.astype(float)
        same = emulated == simulated
        with np.errstate(divide="ignore"):
            return np.where(same, 0.0, simulated / np.where(same, 1.0, emulated) - 1)

    @property
    def within(self) -> float | None:
        """The share of flows that are right; None without flows."""
        if not len(self.emulated_ns):
            return None
        return float(np.mean(np.abs(self.errors) <= FLOW_ERROR))


def matched_flows(emulated: RunTimes, simulated: RunTimes) -> Matched:
    """Return the flows that carry the same in both runs. Flows of different sizes, as of different batches,
    do not match."""
    both = [
        (one, simulated.flows[key])
        for key, one in emulated.flows.items()
        if key in simulated.flows and simulated.flows[key].size_bytes == one.size_bytes
    ]
    return Matched(
        stages=tuple(one.stage for one, _ in both),
        emulated_ns=np.array([one.took_ns for one, _ in both], dtype=np.int64),
        simulated_ns=np.array([other.took_ns for _, other in both], dtype=np.int64),
    )


def compare(emulated: RunTimes, simulated: RunTimes) -> Comparison:
    """Compare two runs of the same requests."""
    matched = matched_flows(emulated, simulated)

    def both(statistic: Callable[[RunTimes], float | None]) -> Pair:
        return Pair(statistic(emulated), statistic(simulated))

    return Comparison(
        requests=len(emulated.met_slo),
        ttft_mean_s=both(lambda run: _seconds(mean(_values(run.ttft_ns)))),
        ttft_p50_s=both(lambda run: _seconds(percentile(_values(run.ttft_ns), 50))),
        ttft_p99_s=both(lambda run: _seconds(percentile(_values(run.ttft_ns), 99))),
        slo_attainment=both(lambda run: mean([float(met) for met in run.met_slo.values()])),
        cct_mean_s=both(lambda run: _mean_s(run, Stage.COLLECTIVE)),
        stages=tuple(_stage(stage, emulated, simulated, matched.of(stage)) for stage in SERVING_STAGES),
        flows=len(emulated.flows),
        matched=len(matched.stages),
        within=matched.within,
    )


def _stage(stage: Stage, emulated: RunTimes, simulated: RunTimes, matched: Matched) -> StageTimes:
    count = len(matched.stages)
    errors = matched.errors
    return StageTimes(
        stage=stage.value,
        mean_s=Pair(_mean_s(emulated, stage), _mean_s(simulated, stage)),
        matched=count,
        only_emulated=sum(flow.stage is stage for flow in emulated.flows.values()) - count,
        only_simulated=sum(flow.stage is stage for flow in simulated.flows.values()) - count,
        p10=percentile(errors, 10),
        p50=percentile(errors, 50),
        p90=percentile(errors, 90),
        within=matched.within,
    )


def _mean_s(run: RunTimes, stage: Stage) -> float | None:
    return _seconds(mean([float(f.took_ns) for f in run.flows.values() if f.stage is stage]))


def _values(times: Mapping[int, int]) -> list[float]:
    return [float(time) for time in times.values()]


def _seconds(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / NS_PER_S
