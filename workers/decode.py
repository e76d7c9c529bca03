"""A decode rank's side: its first decode step of a request follows the last of its KV."""

import threading
from collections.abc import Callable

from workers.clock import Clock
from workers.first_tokens import Delivered, Deliveries
from workers.plan import BatchPlan, RequestPlan
from workers.protocol import FirstToken, Span, encode
from workers.recorder import Recorder
from workers.spans import SpanKind
from workers.wire import Outbox


class DecodeDesk:
    """Takes the first decode step of each request that decodes on this rank.

    A step has a thread of its own. `failed` is called with an exception in it. `compute`, if given, computes
    the first token of a request in this time.
    """

    def __init__(
        self,
        rank: int,
        clock: Clock,
        coordinator: Outbox,
        recorder: Recorder,
        failed: Callable[[BaseException], None],
        compute: Callable[[RequestPlan], None] | None = None,
    ) -> None:
        self._rank = rank
        self._clock = clock
        self._coordinator = coordinator
        self._recorder = recorder
        self._failed = failed
        self._compute = compute
        self._lock = threading.Lock()
        self._deliveries = Deliveries(rank)

    def expect(self, plan: BatchPlan) -> None:
        """Note the requests of a batch that decode here."""
        for request in plan.requests:
            if self._rank in request.decode_ranks:
                with self._lock:
                    delivered = self._deliveries.planned(request, plan.id)
                self._begin(delivered)

    def arrived(self, request: int, now_ns: int) -> None:
        """A P2D flow of `request` is here; the last one starts the first decode step."""
        with self._lock:
            delivered = self._deliveries.arrived(request, now_ns)
        self._begin(delivered)

    def _begin(self, delivered: Delivered | None) -> None:
        if delivered is not None:
            threading.Thread(target=self._first_step, args=(delivered,), daemon=True).start()

    def _first_step(self, delivered: Delivered) -> None:
        try:
            plan, p2d_end_ns = delivered.plan, delivered.p2d_end_ns
            self._take_step(plan)
            now_ns = self._clock.now_ns()
            self._recorder.spans.append(
                Span(
                    kind=SpanKind.DECODE_STEP,
                    label=f"request {plan.request}",
                    batch=delivered.batch,
                    layer=None,
                    start_ns=p2d_end_ns,
                    end_ns=now_ns,
                )
            )
            step = FirstToken(
                request=plan.request, ranks=len(plan.decode_ranks), p2d_end_ns=p2d_end_ns, time_ns=now_ns
            )
            self._coordinator.send(encode(step))
        except BaseException as error:
            self._failed(error)

    def _take_step(self, plan: RequestPlan) -> None:
        step_s = self._clock.compute_s(plan.decode_step_s)
        if self._compute is None:
            self._clock.wait_for(step_s)
            return
        begun_wall_ns = self._clock.wall_ns()
        self._compute(plan)
        self._clock.wait_out(begun_wall_ns, step_s)
