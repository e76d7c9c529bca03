"""Submit, wait for the permit, send: the sending side of every flow of a rank."""

import threading
import time
from collections.abc import Mapping

from controller.flow import Stage
from controller.protocol import Completion, Permit, Submit, SubmitShare, encode
from workers.clock import Clock
from workers.lanes import Outgoing, SendLane
from workers.plan import Transfer
from workers.protocol import SentFlow
from workers.recorder import Recorder
from workers.wire import Outbox


class _Share:
    """A share of a collective that waits for its permit."""

    def __init__(self, message: SubmitShare) -> None:
        self.message = message
        self.permitted = threading.Event()
        self.permit: Permit | None = None


class Sender:
    """Turns transfers into submissions and permits into bytes; thread-safe."""

    def __init__(
        self, rank: int, clock: Clock, controller: Outbox, recorder: Recorder, bytes_scale: float
    ) -> None:
        self._rank = rank
        self._clock = clock
        self._controller = controller
        self._recorder = recorder
        self._bytes_scale = bytes_scale
        self._lanes: dict[str, SendLane] = {}
        self._transfers: dict[str, tuple[Transfer, int]] = {}
        self._shares: dict[str, _Share] = {}

    def add_lane(self, lane: SendLane) -> None:
        self._lanes[lane.name] = lane

    def post(self, transfer: Transfer) -> None:
        """Submit a transfer and return; it is sent when its permit comes."""
        sent_wall_ns = time.monotonic_ns()
        self._transfers[transfer.id] = (transfer, sent_wall_ns)
        self._controller.send(
            encode(
                Submit(
                    flow=transfer.id,
                    stage=transfer.stage,
                    src=transfer.src,
                    dst=transfer.dst,
                    size_bytes=transfer.size_bytes,
                    sent_wall_ns=sent_wall_ns,
                    batch=transfer.batch,
                    request=None if transfer.request is None else str(transfer.request),
                    layer=transfer.layer,
                    coflow=transfer.belongs_to,
                    deadline_ns=transfer.deadline_ns,
                    downstream_ns=transfer.downstream_ns,
                )
            )
        )

    def share_permitted(
        self,
        flow: str,
        *,
        coflow: str,
        group: str,
        peer_bytes: Mapping[int, int],
        batch: str | None,
        layer: int | None,
        downstream_ns: int = 0,
    ) -> None:
        """Submit this rank's share of a collective and wait until it may start."""
        share = _Share(
            SubmitShare(
                flow=flow,
                coflow=coflow,
                group=group,
                rank=self._rank,
                peer_bytes=dict(peer_bytes),
                sent_wall_ns=time.monotonic_ns(),
                batch=batch,
                layer=layer,
                downstream_ns=downstream_ns,
            )
        )
        self._shares[flow] = share
        self._controller.send(encode(share.message))
        share.permitted.wait()

    def share_ended(self, flow: str) -> None:
        del self._shares[flow]
        self._controller.send(encode(Completion(flow=flow)))

    def permitted(self, permit: Permit) -> None:
        """A permit came in: start the share, or give the message to its lane."""
        wall_ns = time.monotonic_ns()
        share = self._shares.get(permit.flow)
        if share is not None:
            self._record_share(share.message, permit, wall_ns)
            share.permitted.set()
            return
        transfer, sent_wall_ns = self._transfers.pop(permit.flow)
        self._recorder.sent.append(
            SentFlow(
                id=transfer.id,
                stage=transfer.stage,
                src=transfer.src,
                dst=transfer.dst,
                size_bytes=transfer.size_bytes,
                batch=transfer.batch,
                request=transfer.request,
                layer=transfer.layer,
                coflow=transfer.belongs_to,
                deadline_ns=transfer.deadline_ns,
                submit_ns=self._clock.at_ns(sent_wall_ns),
                permit_ns=self._clock.at_ns(wall_ns),
                lane_wait_ns=self._clock.span_ns(permit.lane_wait_wall_ns),
                permit_latency_wall_ns=wall_ns - sent_wall_ns - permit.lane_wait_wall_ns,
                level=permit.level,
            )
        )
        self._lanes[permit.lane].send(
            Outgoing(
                flow=transfer.id,
                size_bytes=transfer.size_bytes,
                wire_bytes=wire_bytes(transfer.size_bytes, self._bytes_scale),
            )
        )

    def _record_share(self, message: SubmitShare, permit: Permit, wall_ns: int) -> None:
        self._recorder.sent.append(
            SentFlow(
                id=message.flow,
                stage=Stage.COLLECTIVE,
                src=self._rank,
                dst=-1,
                size_bytes=sum(message.peer_bytes.values()),
                batch=message.batch,
                request=None,
                layer=message.layer,
                coflow=message.coflow,
                deadline_ns=None,
                submit_ns=self._clock.at_ns(message.sent_wall_ns),
                permit_ns=self._clock.at_ns(wall_ns),
                lane_wait_ns=0,
                permit_latency_wall_ns=wall_ns - message.sent_wall_ns,
                level=permit.level,
            )
        )


def wire_bytes(model_bytes: int, bytes_scale: float) -> int:
    """Bytes on the wire for a message of `model_bytes`: at least one."""
    return max(1, round(model_bytes * bytes_scale))
