"""The receiving side of a rank: what arrives, and where that is reported."""

import threading
from collections.abc import Iterable

from controller.flow import Stage
from controller.protocol import Completion, FlowProgress
from controller.protocol import encode as encode_up
from workers.clock import Clock
from workers.decode import DecodeDesk
from workers.first_tokens import ByConductor, ByFirstToken, ByLayer, awaited
from workers.lanes import Header
from workers.protocol import Arrived, ProgressMark, ReceivedFlow, encode
from workers.recorder import Recorder
from workers.wire import Outbox


class Arrivals:
    """Records what arrives and reports it. Thread-safe.

    The controller gets every arrival. In addition, the decode desk gets P2D flows, the coordinator gets
    flows that belong to no request, and S1 flows are kept here until their layer waits for them. Memory:
    the ids of these S1 flows.
    """

    def __init__(
        self, clock: Clock, controller: Outbox, coordinator: Outbox, recorder: Recorder, desk: DecodeDesk
    ) -> None:
        self._clock = clock
        self._controller = controller
        self._coordinator = coordinator
        self._recorder = recorder
        self._desk = desk
        self._fetched: set[str] = set()
        self._changed = threading.Condition()

    def progressed(self, flow: str, size_bytes: int, received_bytes: int) -> None:
        """`received_bytes` of the `size_bytes` of a flow are here, in model bytes."""
        mark = ProgressMark(flow=flow, time_ns=self._clock.now_ns(), received_bytes=received_bytes)
        self._recorder.progress.append(mark)
        self._controller.send(encode_up(FlowProgress(flow=flow, bytes_left=size_bytes - received_bytes)))

    def arrived(self, stage: Stage, header: Header, verified: bool | None) -> None:
        """All of a flow of `stage` is here. `verified` is None if its bytes were not compared."""
        now_ns = self._clock.now_ns()
        self._recorder.received.append(ReceivedFlow(id=header.flow, finish_ns=now_ns, verified=verified))
        self._controller.send(encode_up(Completion(flow=header.flow)))
        match awaited(stage, header.request):
            case ByConductor():
                self._coordinator.send(encode(Arrived(flow=header.flow)))
            case ByFirstToken(request=request):
                self._desk.arrived(request, now_ns)
            case ByLayer():
                with self._changed:
                    self._fetched.add(header.flow)
                    self._changed.notify_all()

    def take(self, flows: Iterable[str]) -> None:
        """Wait until all these S1 flows are here, then forget them."""
        wanted = frozenset(flows)
        with self._changed:
            self._changed.wait_for(lambda: wanted <= self._fetched)
            self._fetched -= wanted
