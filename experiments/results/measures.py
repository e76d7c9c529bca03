"""What a run is judged by, from one pass over its flows and one over its spans.

A run may have more rows than fit into memory, so rows are seen once and only numbers are kept: eight bytes
for a flow, and nothing for a flow of a collective that is over. Durations are model nanoseconds. What
nothing contributed to is an empty array.
"""

from array import array
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from controller.flow import Stage
from experiments.results.requests import batches_of, counted_from_ns
from testbed.record import FlowRow, RequestRow, RunRecord, SpanRow
from testbed.serving.decoding import is_background
from workers.spans import SpanKind

IntArray = npt.NDArray[np.int64]

Key = TypeVar("Key")
Group = TypeVar("Group")


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowMeasures:
    """Measures of flows; each array has an entry for every flow or collective it is about, in no order.

    Where a run warms up, flows of the requests that do, and flows submitted before the first of the others
    arrived, are in none of them but `checked` and `failed`.

    - `stage_ns`: submit to finish of each flow, by stage, lane and permit waits included.
    - `collective_ns`: completion time of each collective, from the *last* member's submit, when all are
      ready, to the last member's finish. Waiting for a slow member is thus charged to what made it slow,
      not to the network under the collective.
    - `coflow_ns`: completion time of each coflow that is not of a batch, by its name, from its first submit
      to its last finish, as Varys and Aalo measure it (docs/concepts/coflows.md). The coflows of a batch are
      stages of its layers and have measures of their own.
    - `p2d_slack_ns`: deadline less finish of each S3 flow with a deadline; negative where it was late.
    - `checked`, `failed`: flows whose payload was compared with what was sent, and those that differed.
    """

    stage_ns: Mapping[Stage, IntArray]
    collective_ns: IntArray
    coflow_ns: Mapping[str, int]
    p2d_slack_ns: IntArray
    promotions: int
    checked: int
    failed: int

    @property
    def earliness_ns(self) -> IntArray:
        """How long before its deadline each S3 flow finished, `max(0, deadline - finish)`.

        MFS v1 (section 2) wants S3 not needlessly early: bandwidth given to a flow that could wait is
        taken from one that could not.
        """
        return np.maximum(self.p2d_slack_ns, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposedS1:
    """S1 time that compute did not hide, per batch and layer that waits for S1: `wait_ns` and `layer` have
    an entry for each. It is the longest wait of any rank, because the collective after the compute makes
    every rank wait for the last one."""

    wait_ns: IntArray
    layer: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    flows: FlowMeasures
    exposed_s1: ExposedS1


def measure(record: RunRecord) -> Measures:
    """Go once over the flows and once over the spans of `record`."""
    units = units_of_batches(record.requests)
    warmup = WarmUp.of(record.requests)
    return Measures(
        flows=flow_measures(
            record.flows, units, warmup, serving=bool(record.requests), at_once=record.batches_at_once
        ),
        exposed_s1=exposed_s1(record.spans, units, warmup, at_once=record.batches_at_once),
    )


@dataclass(frozen=True, slots=True)
class WarmUp:
    """What of a run does not count: what began before `until_ns`, and the flows of `requests`."""

    until_ns: int = 0
    requests: frozenset[int] = frozenset()

    @classmethod
    def of(cls, requests: Sequence[RequestRow]) -> "WarmUp":
        until_ns = counted_from_ns(requests)
        if until_ns is None:
            return cls()
        return cls(until_ns, frozenset(row.request for row in requests if row.warmup))


NO_WARM_UP = WarmUp()


def units_of_batches(requests: Iterable[RequestRow]) -> dict[str, str]:
    """The unit that each batch ran on."""
    return {batch: row.unit for row in requests if row.unit is not None for batch in batches_of(row)}


def flow_measures(
    flows: Iterable[FlowRow],
    units: Mapping[str, str],
    warmup: WarmUp = NO_WARM_UP,
    *,
    serving: bool = True,
    at_once: int = 1,
) -> FlowMeasures:
    """Measure `flows`, in a `serving` run without those between decode workers.

    `units` are those of the batches; a unit works on `at_once` batches at once at most. `RunRecord` says what
    the order of flows has to keep.
    """
    stages = {stage: array("q") for stage in Stage}
    collectives = array("q")
    slack = array("q")
    coflows: dict[str, tuple[int, int]] = {}
    promotions = checked = failed = 0

    def close(shares: dict[str, tuple[int, int]]) -> None:
        collectives.extend(finish - ready for ready, finish in shares.values() if ready >= warmup.until_ns)

    open_collectives = _OpenGroups[str, tuple[int, int]](units, at_once, close)
    for flow in flows:
        submit, finish = flow.submit_ns, flow.finish_ns
        if flow.verified is not None:
            checked += 1
            failed += not flow.verified
        if serving and is_background(flow.id):
            continue
        counts = submit >= warmup.until_ns and flow.request not in warmup.requests
        if counts:
            stages[flow.stage].append(finish - submit)
            promotions += flow.promotions
        if flow.stage is Stage.COLLECTIVE:
            shares = open_collectives.of(flow.batch)
            name = flow.coflow or flow.id
            ready, last = shares.get(name, (submit, finish))
            shares[name] = max(ready, submit), max(last, finish)
        elif counts and flow.stage is Stage.P2D and flow.deadline_ns is not None:
            slack.append(flow.deadline_ns - finish)
        if flow.batch is None and flow.coflow is not None:
            first, last = coflows.get(flow.coflow, (submit, finish))
            coflows[flow.coflow] = min(first, submit), max(last, finish)
    open_collectives.close()
    return FlowMeasures(
        stage_ns={stage: _numbers(times) for stage, times in stages.items()},
        collective_ns=_numbers(collectives),
        coflow_ns={name: last - first for name, (first, last) in coflows.items()},
        p2d_slack_ns=_numbers(slack),
        promotions=promotions,
        checked=checked,
        failed=failed,
    )


def exposed_s1(
    spans: Iterable[SpanRow],
    units: Mapping[str, str],
    warmup: WarmUp = NO_WARM_UP,
    *,
    at_once: int = 1,
) -> ExposedS1:
    """Measure the S1 waits among `spans` that began after the warm-up. The others as in `flow_measures`."""
    longest = array("q")
    layers = array("q")

    def close(waits: dict[tuple[str, int], dict[int, int]]) -> None:
        for (_, layer), by_rank in waits.items():
            longest.append(max(by_rank.values()))
            layers.append(layer)

    open_waits = _OpenGroups[tuple[str, int], dict[int, int]](units, at_once, close)
    for span in spans:
        if span.start_ns < warmup.until_ns:
            continue
        if span.kind == SpanKind.S1_WAIT and span.batch is not None and span.layer is not None:
            by_rank = open_waits.of(span.batch).setdefault((span.batch, span.layer), {})
            by_rank[span.rank] = by_rank.get(span.rank, 0) + span.end_ns - span.start_ns
    open_waits.close()
    return ExposedS1(wait_ns=_numbers(longest), layer=_numbers(layers))


class _OpenGroups(Generic[Key, Group]):
    """Groups of rows that are not known to be whole yet, by the unit they are of.

    A unit works on `at_once` batches at once at most: the groups of a batch are whole when rows of so many
    later batches of the unit have come. `close` is then told of them and they are forgotten. Groups of no
    known unit stay to the end.
    """

    def __init__(
        self, units: Mapping[str, str], at_once: int, close: Callable[[dict[Key, Group]], None]
    ) -> None:
        self._units = units
        self._at_once = at_once
        self._close = close
        self._open: dict[str | None, dict[str | None, dict[Key, Group]]] = {}

    def of(self, batch: str | None) -> dict[Key, Group]:
        unit = self._units.get(batch) if batch is not None else None
        known = self._open.setdefault(unit, {})
        batch = batch if unit is not None else None
        if batch not in known:
            if len(known) == self._at_once:
                self._close(known.pop(next(iter(known))))
            known[batch] = {}
        return known[batch]

    def close(self) -> None:
        for batches in self._open.values():
            for groups in batches.values():
                self._close(groups)
        self._open.clear()


def _numbers(values: "array[int]") -> IntArray:
    return np.array(values, dtype=np.int64)
