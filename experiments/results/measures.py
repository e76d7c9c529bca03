"""The measures of a run, from one pass over its flows and one over its spans.

A run may have more rows than fit into memory. So each row is read once, and only numbers are kept: at most
two of eight bytes for a flow of a batch, and one for a collective that has ended. Durations are model
nanoseconds. A measure without values is an empty array.
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
    """Measures of flows. Each array has an entry per flow or collective that it measures, in any order.

    - `stage_ns`: submit to finish of each flow, by stage, including waits for a lane and a permit.
    - `collective_ns`: completion time of each collective, from the *last* member's submit, when all are
      ready, to the last member's finish. So waiting for a slow member is not charged to the network.
    - `coflow_ns`: completion time of each coflow that is not part of a batch, by name, from its first
      submit to its last finish, as Varys and Aalo measure it (docs/concepts/coflows.md). The coflows of a
      batch are the stages of its layers, which have measures of their own.
    - `p2d_slack_ns`: deadline minus finish of each S3 flow with a deadline. It is negative for a late flow.
    - `promotions`: level changes upward, over all flows.
    - `checked`, `failed`: flows whose payload was compared with what was sent, and those that differed.

    With a warm-up, the flows of its requests and all flows submitted before the first other request arrived
    count only in `checked` and `failed`. A collective does not count if its last member was ready before
    that arrival.
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
        """How long before its deadline each S3 flow finished: `max(0, deadline - finish)`.

        MFS v1 (section 2) wants no S3 flow to finish needlessly early, because bandwidth for a flow that
        can wait is taken from flows that cannot.
        """
        return np.maximum(self.p2d_slack_ns, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposedS1:
    """S1 time that compute did not hide. Both arrays have an entry per batch and layer that waits for S1.

    `wait_ns` is the longest wait of any rank, because the collective after the compute makes all ranks wait
    for the last one.
    """

    wait_ns: IntArray
    layer: IntArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Measures:
    flows: FlowMeasures
    exposed_s1: ExposedS1


def measure(record: RunRecord) -> Measures:
    """Return the measures of `record`. Its flows and its spans are iterated once."""
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
    """The part of a run that does not count: what began before `until_ns`, and the flows of `requests`."""

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
    """Return the unit of each batch."""
    return {batch: row.unit for row in requests if row.unit is not None for batch in batches_of(row)}


def flow_measures(
    flows: Iterable[FlowRow],
    units: Mapping[str, str],
    warmup: WarmUp = NO_WARM_UP,
    *,
    serving: bool = True,
    at_once: int = 1,
) -> FlowMeasures:
    """Measure `flows`; in a `serving` run, without those of background decoding.

    `units` has the unit of each batch. A unit works on at most `at_once` batches at a time. `RunRecord`
    says which order the flows must have.
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
    """Measure the S1 waits among `spans` that began after the warm-up.

    `units` and `at_once` are as in `flow_measures`.
    """
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
    """Groups of rows that may not be complete yet, by unit and batch.

    A unit works on at most `at_once` batches at a time. So the groups of a batch are complete when rows of
    that many later batches of the unit have come. They are then passed to `close` and dropped. Groups
    without a known unit stay until the end.
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
