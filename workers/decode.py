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
    plan: RequestPlan
    batch: str
    missing: int


class DecodeDesk:
    """Counts the P2D flows of the requests this rank will decode."""

    def __init__(self, rank: int, clock: Clock, coordinator: Outbox, recorder: Recorder) -> None:
        self._rank = rank
        self._clock = clock
        self._coordinator = coordinator
        self._recorder = recorder
        self._lock = threading.Lock()
        self._by_flow: dict[str, _Expected] = {}

    def expect(self, plan: BatchPlan) -> set[str]:
        """Note the requests of a batch that decode here; returns the ids of their flows."""
        flows = set()
        mine = {
            request.request: _Expected(request, plan.id, request.p2d_flows)
            for request in plan.requests
            if request.decode_rank == self._rank
        }
        with self._lock:
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
            expected.missing -= 1
            complete = expected.missing == 0
        if complete:
            threading.Thread(target=self._first_step, args=(expected, now_ns), daemon=True).start()
        return True

    def _first_step(self, expected: _Expected, p2d_end_ns: int) -> None:
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
