"""The decode worker's side: a request's first token is out when all its KV is here, plus one step."""

import threading
from dataclasses import dataclass

from workers.clock import Clock
from workers.plan import BatchPlan, RequestPlan
from workers.protocol import FirstToken, Span, encode
from workers.recorder import Recorder
from workers.wire import Outbox


@dataclass(slots=True)
class _Expected:
    """A request, the batch with the last part of its prompt that is known, and the flows of all parts.

    `last_ns` is when the latest of those that `arrived` did: lanes are threads, and one that has read the
    clock may be overtaken before it says so.
    """

    plan: RequestPlan
    batch: str
    arrived: int = 0
    last_ns: int = 0

    def complete(self) -> bool:
        return self.plan.last and self.arrived == self.plan.p2d_flows


class DecodeDesk:
    """Counts the P2D flows of the requests this rank will decode, over all batches with a part of one."""

    def __init__(self, rank: int, clock: Clock, coordinator: Outbox, recorder: Recorder) -> None:
        self._rank = rank
        self._clock = clock
        self._coordinator = coordinator
        self._recorder = recorder
        self._lock = threading.Lock()
        self._by_flow: dict[str, _Expected] = {}
        self._in_parts: dict[int, _Expected] = {}

    def expect(self, plan: BatchPlan) -> set[str]:
        """Note the requests of a batch that decode here; returns the ids of their flows."""
        flows = set()
        mine: dict[int | None, _Expected] = {}
        with self._lock:
            for request in plan.requests:
                if request.decode_rank == self._rank:
                    mine[request.request] = self._expected(request, plan.id)
            for layer in plan.layers:
                for transfer in layer.post:
                    if transfer.request in mine:
                        self._by_flow[transfer.id] = mine[transfer.request]
                        flows.add(transfer.id)
        return flows

    def arrived(self, flow: str, now_ns: int) -> bool:
        """Whether the flow was one of ours; the last one of a request starts its first decode step."""
        with self._lock:
            expected = self._by_flow.pop(flow, None)
            if expected is None:
                return False
            expected.arrived += 1
            expected.last_ns = max(expected.last_ns, now_ns)
            complete = expected.complete()
        if complete:
            threading.Thread(target=self._first_step, args=(expected,), daemon=True).start()
        return True

    def _expected(self, request: RequestPlan, batch: str) -> _Expected:
        """What is known of the request; of earlier parts flows may be here or still to come."""
        expected = self._in_parts.pop(request.request, None) or _Expected(request, batch)
        expected.plan, expected.batch = request, batch
        if not request.last:
            self._in_parts[request.request] = expected
        return expected

    def _first_step(self, expected: _Expected) -> None:
        p2d_end_ns = expected.last_ns
        self._clock.wait_for(expected.plan.decode_step_s)
        now_ns = self._clock.now_ns()
        self._recorder.spans.append(
            Span(
                kind="decode",
                label=f"request {expected.plan.request}",
                batch=expected.batch,
                layer=None,
                start_ns=p2d_end_ns,
                end_ns=now_ns,
            )
        )
        self._coordinator.send(
            encode(FirstToken(request=expected.plan.request, p2d_end_ns=p2d_end_ns, time_ns=now_ns))
        )
