"""Submit, wait for the permit, send: the sending side of every flow of a rank."""

import threading
from collections.abc import Callable, Mapping
from functools import partial

import torch

from controller.flow import Transfer
from controller.protocol import Completion, Permit, Submit, SubmitShare, encode
from workers.clock import Clock
from workers.lanes import Header, SendLane
from workers.protocol import SentFlow
from workers.recorder import Recorder
from workers.wire import Outbox


class _Submitted:
    """A flow that waits for its permit.

    `permitted` wakes the thread that submitted a share of a collective, which sends the share itself. It is
    None for a transfer, which its lane sends.
    """

    __slots__ = ("permitted", "sent_wall_ns", "transfer")

    def __init__(self, transfer: Transfer, permitted: threading.Event | None, sent_wall_ns: int) -> None:
        self.transfer = transfer
        self.permitted = permitted
        self.sent_wall_ns = sent_wall_ns


class Sender:
    """Turns transfers into submissions, and permits into bytes. Thread-safe.

    `load`, if given, returns the bytes of a transfer of a request; its lane calls it when it is about to send
    them. Other transfers have seeded bytes.
    """

    def __init__(
        self,
        clock: Clock,
        controller: Outbox,
        recorder: Recorder,
        bytes_scale: float,
        load: Callable[[Transfer], torch.Tensor] | None = None,
    ) -> None:
        self._clock = clock
        self._controller = controller
        self._recorder = recorder
        self._bytes_scale = bytes_scale
        self._load = load
        self._lanes: dict[str, SendLane] = {}
        self._submitted: dict[str, _Submitted] = {}

    def add_lane(self, lane: SendLane) -> None:
        self._lanes[lane.name] = lane

    def post(self, transfer: Transfer) -> None:
        """Submit a transfer and return. It is sent when its permit comes."""
        submitted = self._submitted[transfer.id] = _Submitted(transfer, None, self._clock.wall_ns())
        self._controller.send(encode(Submit(transfer=transfer, sent_wall_ns=submitted.sent_wall_ns)))

    def share_permitted(self, share: Transfer, group: str, peer_bytes: Mapping[int, int]) -> None:
        """Submit this rank's share of a collective and wait until it may start."""
        permitted = threading.Event()
        submitted = self._submitted[share.id] = _Submitted(share, permitted, self._clock.wall_ns())
        self._controller.send(
            encode(
                SubmitShare(
                    share=share,
                    group=group,
                    peer_bytes=dict(peer_bytes),
                    sent_wall_ns=submitted.sent_wall_ns,
                )
            )
        )
        permitted.wait()

    def share_ended(self, flow: str) -> None:
        self._controller.send(encode(Completion(flow=flow)))

    def permitted(self, permit: Permit) -> None:
        """A permit has come: start the share, or give the message to its lane."""
        wall_ns = self._clock.wall_ns()
        submitted = self._submitted.pop(permit.flow)
        transfer, sent_wall_ns = submitted.transfer, submitted.sent_wall_ns
        self._recorder.sent.append(
            SentFlow(
                transfer=transfer,
                submit_ns=self._clock.at_ns(sent_wall_ns),
                permit_ns=self._clock.at_ns(wall_ns),
                lane_wait_ns=self._clock.span_ns(permit.lane_wait_wall_ns),
                permit_latency_wall_ns=wall_ns - sent_wall_ns - permit.lane_wait_wall_ns,
            )
        )
        if submitted.permitted is not None:
            submitted.permitted.set()
            return
        self._lanes[permit.lane].send(
            Header(
                flow=transfer.id,
                size_bytes=transfer.size_bytes,
                wire_bytes=wire_bytes(transfer.size_bytes, self._bytes_scale),
                request=transfer.request,
            ),
            None if self._load is None or transfer.request is None else partial(self._load, transfer),
        )


def wire_bytes(model_bytes: int, bytes_scale: float) -> int:
    """Bytes on the wire for a message of `model_bytes`, at least one."""
    return max(1, round(model_bytes * bytes_scale))
