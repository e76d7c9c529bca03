"""The two processes of `mfs bench transport`: one sends, the other receives. They import torch.

Both have the ends of the same lanes, as ranks have them, and of a bare process group. The sender says what
comes next, sends it, and is told when it arrived. Both clocks are CLOCK_MONOTONIC of one machine.
"""

import os
import queue
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, NoReturn

import torch
import torch.distributed as dist

from controller.flow import Stage, Transfer
from controller.protocol import Down, LaneUp, Permit, TcpConnection, decode_down, encode
from experiments.bench.transport_ways import SERVERS, Next, Setup, Task, Way
from workers.arrivals import Arrivals
from workers.clock import Clock
from workers.connecting import REPORT_GAP_S
from workers.decode import DecodeDesk
from workers.lanes import Header, ReceiveLane, SendLane
from workers.options import Device
from workers.payload import Payloads
from workers.process_groups import ProcessGroups
from workers.recorder import Recorder
from workers.sender import Sender
from workers.staging import staging_for
from workers.wire import Inbox, Outbox

STAGE = Stage.KV_REUSE
_LANE = "lane"
_PERMITTED = "permitted"
_SEED = 1
_WARM_UP = 2
_PAGE_BYTES = 64 * 1024
"""On a GPU, lanes gather from pages of this size: 16 tokens of 8 KV heads of width 128, in 16 bits."""


def run_sender(setup: Setup, tasks: Connection, peer: Connection) -> None:
    """Carry out each `Task` that comes, and answer with the nanoseconds of its messages, by way."""
    _as_a_rank()
    end = _Sending(setup, peer)
    while True:
        tasks.send(end.measure(tasks.recv()))


def run_receiver(setup: Setup, peer: Connection) -> None:
    """Receive whatever comes `Next`, and answer with the moment at which it had arrived."""
    _as_a_rank()
    end = _Receiving(setup)
    while True:
        peer.send(end.receive(peer.recv(), lambda: peer.send(None)))


class _End:
    """What both ends have. `index` is 0 at the sending end."""

    def __init__(self, setup: Setup, index: int) -> None:
        cuda = setup.device is Device.CUDA
        self.device = torch.device("cuda", index) if cuda else torch.device("cpu")
        self.payloads = Payloads(_SEED, self.device)
        self.staging = staging_for(
            self.device,
            self.payloads,
            page_bytes=_PAGE_BYTES,
            chunk_bytes=setup.chunk_bytes,
            lanes=len((Way.LANE, Way.PERMITTED)),
        )
        store = dist.FileStore(setup.store, 2)

        def groups(nccl: bool) -> ProcessGroups:
            return ProcessGroups(store=store, store_port=0, interface="lo", device=self.device, nccl=nccl)

        self.bare, _ = groups(cuda).group("bare", index, 2)
        on_gloo = groups(False)
        self.lane, self.permitted = (on_gloo.lane(name, index)[0] for name in (_LANE, _PERMITTED))
        self.clock = Clock(1.0)
        self.clock.start(0)
        self.recorder = Recorder()
        self.controller = Outbox(setup.endpoint, setup.keys)

    def settle(self) -> None:
        """Wait for what a bare NCCL call has only put on a stream."""
        if self.device.type != "cpu":
            torch.cuda.synchronize(self.device)


class _Sending(_End):
    def __init__(self, setup: Setup, peer: Connection) -> None:
        super().__init__(setup, 0)
        self._peer = peer
        self._lane = SendLane(_LANE, self.lane, self.staging, setup.chunk_bytes, _die)
        self._sender = Sender(self.clock, self.controller, self.recorder, 1.0)
        self._sender.add_lane(
            SendLane(_PERMITTED, self.permitted, self.staging, setup.chunk_bytes, _die),
        )
        Inbox(setup.endpoint, decode_down, self._on_down, _die, keys=setup.keys, name="0").start()
        # Not marked by anybody, and on one machine: the controller only keeps its path.
        connection = TcpConnection(src_ip="127.0.0.1", dst_ip="127.0.0.1", src_port=1, dst_port=2)
        lane_up = LaneUp(
            lane=_PERMITTED,
            stage=STAGE,
            src=0,
            dst=1,
            src_server=SERVERS[0],
            dst_server=SERVERS[1],
            connections=(connection,),
        )
        self.controller.send(encode(lane_up))
        self._count = 0

    def measure(self, task: Task) -> dict[Way, list[int]]:
        ways = tuple(Way)
        for way in ways * _WARM_UP:
            self._send(way, task.size_bytes)
        times: dict[Way, list[int]] = {way: [] for way in ways}
        end = time.monotonic() + task.seconds
        turn = 0
        while turn < task.least_turns or time.monotonic() < end:
            first = turn % len(ways)  # no way always comes after the same one
            for way in ways[first:] + ways[:first]:
                times[way].append(self._send(way, task.size_bytes))
            turn += 1
        return times

    def _send(self, way: Way, size_bytes: int) -> int:
        """Send a message. Returns the nanoseconds until it had arrived."""
        self._count += 1
        flow = f"f{self._count}"
        payload = self.payloads.source(flow, size_bytes) if way is Way.BARE else None
        self._peer.send(Next(way=way, flow=flow, size_bytes=size_bytes))
        self._peer.recv()  # the other end waits for it
        begun_ns = time.monotonic_ns()
        match way:
            case Way.BARE:
                self.bare.send([payload], 1, 0).wait()
                self.settle()
            case Way.LANE:
                self._lane.send(Header(flow=flow, size_bytes=size_bytes, wire_bytes=size_bytes))
            case Way.PERMITTED:
                self._sender.post(
                    Transfer(id=flow, stage=STAGE, src=0, dst=1, size_bytes=size_bytes, request=0)
                )
        arrived_ns: int = self._peer.recv()
        return arrived_ns - begun_ns

    def _on_down(self, message: Down) -> None:
        if not isinstance(message, Permit):
            raise TypeError(f"the controller sends no {type(message).__name__} here")
        self._sender.permitted(message)


class _Receiving(_End):
    def __init__(self, setup: Setup) -> None:
        super().__init__(setup, 1)
        self._arrived: queue.SimpleQueue[int] = queue.SimpleQueue()
        coordinator = Outbox(setup.unused)  # no layer, no first token, so nothing for it
        desk = DecodeDesk(1, self.clock, coordinator, self.recorder, _die)
        self._arrivals = Arrivals(self.clock, self.controller, coordinator, self.recorder, desk)
        self._buffer = torch.empty(0, dtype=torch.uint8, device=self.device)

        def lane(
            name: str,
            group: Any,
            progressed: Callable[[str, int, int], None],
            arrived: Callable[[Header, bool | None], None],
        ) -> None:
            ReceiveLane(
                name,
                group,
                self.staging,
                setup.chunk_bytes,
                setup.verify_share,
                progressed=progressed,
                arrived=arrived,
                failed=_die,
                report_gap_s=REPORT_GAP_S,
            )

        lane(_LANE, self.lane, _unheard, self._lane_arrived)
        lane(_PERMITTED, self.permitted, self._arrivals.progressed, self._permitted_arrived)

    def receive(self, message: Next, ready: Callable[[], None]) -> int:
        """Call `ready`, then wait for the message. Returns the moment at which all of it is here."""
        if message.way is not Way.BARE:
            ready()
            arrived_ns = self._arrived.get()
            if message.way is Way.PERMITTED:
                self._arrivals.take([message.flow])
            return arrived_ns
        if len(self._buffer) < message.size_bytes:
            self._buffer = torch.zeros(message.size_bytes, dtype=torch.uint8, device=self.device)
        work = self.bare.recv([self._buffer[: message.size_bytes]], 0, 0)
        ready()
        work.wait()
        self.settle()
        return time.monotonic_ns()

    def _lane_arrived(self, header: Header, verified: bool | None) -> None:
        self._arrived.put(time.monotonic_ns())

    def _permitted_arrived(self, header: Header, verified: bool | None) -> None:
        arrived_ns = time.monotonic_ns()
        self._arrivals.arrived(STAGE, header, verified)
        self._arrived.put(arrived_ns)


def _unheard(flow: str, size_bytes: int, received_bytes: int) -> None:
    """Progress of a flow that no scheduler knows."""


def _as_a_rank() -> None:
    """Be like a rank (`workers.forked`)."""
    torch.set_num_threads(1)
    sys.setswitchinterval(0.0005)


def _die(error: BaseException) -> NoReturn:
    """End the process: whoever waits for it notices."""
    traceback.print_exception(error, file=sys.stderr)
    sys.stderr.flush()
    os._exit(1)
