"""A steady stream of made-up scheduler events to time policies with: seeded, the same for every policy.

No network is simulated. Completions are drawn and do not follow from levels, so the decisions of a policy
do not change the events that follow. docs/measured/benchmarks.md lists the assumptions.
"""

import enum
import random
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from controller.flow import Flow, Stage
from controller.units import NS_PER_S
from experiments.bench.prefill_batch import COLLECTIVES, LAYERS, REQUESTS_PER_BATCH, UNITS, BenchBatch

MIN_FLOWS = 100
FLOWS_PER_BATCH_AT_ONCE = 125
EVENTS_PER_S_AND_BATCH = 4_000
PROGRESS_SHARE = 0.2
S1_LAYERS_AHEAD = 8

_S1_AND_S2_OF_A_BATCH = 24


class EventKind(enum.StrEnum):
    """The kinds of scheduler event."""

    BATCH = "batch"
    LAYER = "layer"
    SUBMIT = "submit"
    PROGRESS = "progress"
    COMPLETION = "completion"
    TICK = "tick"


class Event(NamedTuple):
    """One call of the scheduler. `arguments` follow the time; `flows` is how many flows it is about."""

    kind: EventKind
    at_ns: int
    arguments: tuple[object, ...]
    flows: int


class _Call(NamedTuple):
    kind: EventKind
    arguments: tuple[object, ...]


_ToCome = Callable[[], "list[_Call | _ToCome]"]
"""Calls that are known only when it is their turn."""


@dataclass(slots=True)
class _Slot:
    """One of the batches that compute at a time. Functions stand for calls that are known only when it is
    their turn, because they depend on which S1 flows are still active."""

    unit: int
    to_come: deque[_Call | _ToCome] = field(default_factory=deque)


@dataclass(slots=True)
class _Sent:
    flow: Flow
    left_bytes: int


class BenchLoad:
    """Keeps `flows` flows active: batches go on while there are fewer, otherwise S1 and S3 flows complete.

    Raises `ValueError` for fewer than `MIN_FLOWS`: the S1 and S2 of two batches alone are about 50 flows.
    """

    def __init__(self, flows: int, *, seed: int = 1) -> None:
        if flows < MIN_FLOWS:
            raise ValueError(f"at least {MIN_FLOWS} flows, not {flows}")
        self._target = flows
        self.batches_at_once = max(len(UNITS), flows // FLOWS_PER_BATCH_AT_ONCE)
        self.events_per_s = EVENTS_PER_S_AND_BATCH * self.batches_at_once
        self._draw = random.Random(seed)
        self._events = 0
        self._batches = 0
        self._sent: dict[str, _Sent] = {}
        self._of_batch: dict[str, int] = {}
        self._loose: list[str] = []  # S1 and S3, oldest first: they may complete at any time
        self._slots = [_Slot(unit=i % len(UNITS)) for i in range(self.batches_at_once)]
        for slot in self._slots:
            self._begin_midway(slot)

    @property
    def active(self) -> int:
        return len(self._sent)

    @property
    def filled(self) -> bool:
        """Whether as many flows are active as were asked for."""
        return len(self._sent) >= self._target

    def events(self) -> Iterator[Event]:
        """Yield events without end, `events_per_s` in model time. Ticks are added by the caller."""
        while True:
            call = self._next()
            self._events += 1
            yield Event(call.kind, self._now_ns, call.arguments, self._book(call))

    @property
    def _now_ns(self) -> int:
        return self._events * NS_PER_S // self.events_per_s

    def _next(self) -> _Call:
        if self._loose and self._draw.random() < PROGRESS_SHARE:
            return self._progress(self._any_loose())
        if not self.filled or not self._loose:
            return self._step(self._draw.choice(self._slots))
        return _completion(self._any_loose())

    def _book(self, call: _Call) -> int:
        """Record the call; return how many flows it is about."""
        match call:
            case (EventKind.SUBMIT, (Flow() as flow,)):
                self._sent[flow.id] = _Sent(flow, flow.size_bytes)
                self._of_batch[str(flow.batch)] += 1
                if flow.stage is not Stage.COLLECTIVE:
                    self._loose.append(flow.id)
            case (EventKind.COMPLETION, (str(flow_id),)):
                flow = self._sent.pop(flow_id).flow
                self._of_batch[str(flow.batch)] -= 1
                if flow.stage is not Stage.COLLECTIVE:
                    self._loose.remove(flow_id)
            case (EventKind.LAYER, (str(batch), _)):
                return max(1, self._of_batch[batch])
        return 1

    def _any_loose(self) -> str:
        """Draw a flow from the older half of the S1 and S3 flows."""
        return self._loose[self._draw.randrange((len(self._loose) + 1) // 2)]

    def _progress(self, flow_id: str) -> _Call:
        sent = self._sent[flow_id]
        sent.left_bytes = round(sent.left_bytes * self._draw.uniform(0.5, 1.0))
        return _Call(EventKind.PROGRESS, (flow_id, sent.left_bytes))

    def _step(self, slot: _Slot) -> _Call:
        while True:
            if not slot.to_come:
                self._run(slot, self._announce(slot), first_layer=0)
            following = slot.to_come.popleft()
            if isinstance(following, _Call):
                return following
            slot.to_come.extendleft(reversed(following()))

    # --- what a slot does -----------------------------------------------------------------------

    def _announce(self, slot: _Slot) -> BenchBatch:
        self._batches += 1
        batch = BenchBatch.drawn(
            self._draw,
            f"b{self._batches}",
            unit=slot.unit,
            now_ns=self._now_ns,
            at_once=self.batches_at_once,
        )
        self._of_batch[batch.id] = 0
        slot.to_come.append(_Call(EventKind.BATCH, (batch.told(),)))
        return batch

    def _run(self, slot: _Slot, batch: BenchBatch, *, first_layer: int) -> None:
        """Queue the calls of a batch. S1 is fetched some layers ahead; a layer waits for its S1, has its
        collectives and posts its S3."""
        for layer in range(first_layer, min(first_layer + S1_LAYERS_AHEAD, LAYERS)):
            slot.to_come.extend(_submits(batch.fetches(layer)))
        for layer in range(first_layer, LAYERS):
            slot.to_come.append(self._rest_of([flow.id for flow in batch.fetches(layer)]))
            slot.to_come.append(_Call(EventKind.LAYER, (batch.id, layer)))
            if layer + S1_LAYERS_AHEAD < LAYERS:
                slot.to_come.extend(_submits(batch.fetches(layer + S1_LAYERS_AHEAD)))
            for label in COLLECTIVES:
                shares = batch.shares(layer, label)
                slot.to_come.extend(_submits(shares))
                self._draw.shuffle(shares)
                slot.to_come.extend(_completion(share.id) for share in shares)
            slot.to_come.extend(_submits(batch.deliveries(layer)))
        slot.to_come.append(_Call(EventKind.LAYER, (batch.id, LAYERS)))

    def _rest_of(self, flow_ids: list[str]) -> _ToCome:
        """Complete those that are still active, one at a time, because others may complete in between."""

        def rest() -> list[_Call | _ToCome]:
            left = [flow_id for flow_id in flow_ids if flow_id in self._sent]
            return [_completion(left[0]), self._rest_of(left[1:])] if left else []

        return rest

    def _begin_midway(self, slot: _Slot) -> None:
        """Begin as if the slot had run for long, with the S3 of a computed batch and with a batch at some
        layer."""
        s3 = self._target // self.batches_at_once - _S1_AND_S2_OF_A_BATCH
        waiting = s3 // REQUESTS_PER_BATCH  # layers whose S3 has been posted and has not arrived
        now = self._draw.randrange(LAYERS)
        before = self._announce(slot)
        for layer in range(LAYERS - max(0, waiting - now), LAYERS):
            slot.to_come.extend(_submits(before.deliveries(layer)))
        slot.to_come.append(_Call(EventKind.LAYER, (before.id, LAYERS)))
        current = self._announce(slot)
        for layer in range(max(0, now - waiting), now):
            slot.to_come.extend(_submits(current.deliveries(layer)))
        self._run(slot, current, first_layer=now)


def _submits(flows: list[Flow]) -> list[_Call]:
    return [_Call(EventKind.SUBMIT, (flow,)) for flow in flows]


def _completion(flow_id: str) -> _Call:
    return _Call(EventKind.COMPLETION, (flow_id,))
