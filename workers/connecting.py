"""Connects a rank: opens its probes, lanes and process groups, and reports them to the controller."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import psutil
import torch
import torch.distributed as dist

from controller.protocol import GroupUp, LaneUp, ProbeUp, encode
from workers.arrivals import Arrivals
from workers.clock import Clock
from workers.collectives import CollectiveGroup
from workers.lanes import ReceiveLane, SendLane
from workers.marking import Marker
from workers.payload import Payloads
from workers.pinned import refusal
from workers.probe import ProbeEnd
from workers.process_groups import ProcessGroups, by_peer
from workers.protocol import LaneSpec, ProbeSpec, RankConfig
from workers.sender import Sender, wire_bytes
from workers.staging import staging_for
from workers.wire import Outbox

REPORT_GAP_S = 0.001
"""Wall seconds between two reports of a flow's progress, at least. On a fast link there would be more of them
than a controller can read."""

_CONNECT_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Connected:
    """The groups and probes of this rank. `backend` is the backend of its collectives."""

    groups: dict[str, CollectiveGroup]
    probes: dict[str, ProbeEnd]
    backend: str


class Connector:
    """Opens what `config` lists for this rank. `failed` is called with what goes wrong on a lane later.

    `keep` takes real payloads, as in `ReceiveLane`.
    """

    def __init__(
        self,
        config: RankConfig,
        *,
        device: torch.device,
        nccl: bool,
        payloads: Payloads,
        sender: Sender,
        arrivals: Arrivals,
        clock: Clock,
        marker: Marker | None,
        controller: Outbox,
        coordinator: Outbox,
        failed: Callable[[BaseException], None],
        keep: Callable[[str, torch.Tensor], None] | None = None,
    ) -> None:
        self._config = config
        self._device = device
        self._nccl = nccl
        self._payloads = payloads
        self._sender = sender
        self._arrivals = arrivals
        self._clock = clock
        self._marker = marker
        self._controller = controller
        self._coordinator = coordinator
        self._failed = failed
        self._keep = keep
        if device.type != "cpu":
            self._refuse_pinning()
        self._staging = staging_for(
            device,
            payloads,
            page_bytes=wire_bytes(config.page_bytes, config.bytes_scale),
            chunk_bytes=config.chunk_bytes,
            lanes=sum(lane.dst == config.rank for lane in config.lanes),
        )

    def _refuse_pinning(self) -> None:
        """Raise `RuntimeError` if the ranks of this machine may pin more of its memory than it can spare."""
        config = self._config
        ranks = range(len(config.servers))
        if config.remote is not None:
            own = config.servers[config.rank]
            here = [rank for rank in ranks if config.servers[rank] == own]
        else:
            here = list(ranks)  # servers of the emulated fabric are namespaces of one machine
        memory_bytes = psutil.virtual_memory().total
        why = refusal(config.lanes, here, config.chunk_bytes, memory_bytes)
        if why is not None:
            raise RuntimeError(why)

    def connect(self) -> Connected:
        """Open probes, lanes and groups, in the same order on all ranks.

        Opening one blocks until its other members open it too. A common order cannot deadlock.
        """
        config = self._config
        store = dist.TCPStore(
            config.store_host,
            config.store_port,
            is_master=config.rank == config.store_rank,
            wait_for_workers=False,
            timeout=timedelta(seconds=_CONNECT_SECONDS),
        )
        opened = ProcessGroups(
            store=store,
            store_port=config.store_port,
            interface=config.interface,
            device=self._device,
            nccl=self._nccl,
            opened=None if self._marker is None else self._marker.take,
        )
        probes = {
            probe.id: self._probe(opened, probe)
            for probe in config.probes
            if config.rank in (probe.src, probe.dst)
        }
        for lane in config.lanes:
            if config.rank == lane.src:
                self._send_lane(opened, lane)
            elif config.rank == lane.dst:
                self._receive_lane(opened, lane)
        groups = {
            name: self._group(opened, name, members)
            for name, members in sorted(config.groups.items())
            if config.rank in members
        }
        return Connected(groups, probes, opened.backend)

    def _probe(self, opened: ProcessGroups, probe: ProbeSpec) -> ProbeEnd:
        config = self._config
        sends = config.rank == probe.src
        group, connections = opened.lane(probe.id, int(not sends))
        if sends:
            self._controller.send(
                encode(
                    ProbeUp(
                        name=probe.id,
                        src=probe.src,
                        src_server=config.servers[probe.src],
                        dst_server=config.servers[probe.dst],
                        connections=connections,
                    )
                )
            )
        return ProbeEnd(
            probe,
            group,
            sends=sends,
            clock=self._clock,
            coordinator=self._coordinator,
            failed=self._failed,
        )

    def _send_lane(self, opened: ProcessGroups, lane: LaneSpec) -> None:
        config = self._config
        group, connections = opened.lane(lane.id, 0)
        self._sender.add_lane(SendLane(lane.id, group, self._staging, config.chunk_bytes, self._failed))
        self._controller.send(
            encode(
                LaneUp(
                    lane=lane.id,
                    stage=lane.stage,
                    src=lane.src,
                    dst=lane.dst,
                    src_server=config.servers[lane.src],
                    dst_server=config.servers[lane.dst],
                    connections=connections,
                )
            )
        )

    def _receive_lane(self, opened: ProcessGroups, lane: LaneSpec) -> None:
        group, _ = opened.lane(lane.id, 1)
        ReceiveLane(
            lane.id,
            group,
            self._staging,
            self._config.chunk_bytes,
            self._config.verify_share,
            progressed=self._arrivals.progressed,
            arrived=partial(self._arrivals.arrived, lane.stage),
            failed=self._failed,
            keep=self._keep,
            report_gap_s=REPORT_GAP_S,
        )

    def _group(self, opened: ProcessGroups, name: str, members: tuple[int, ...]) -> CollectiveGroup:
        config = self._config
        group, connections = opened.group(name, members.index(config.rank), len(members))
        peers = {rank: config.servers[rank] for rank in members if rank != config.rank}
        addresses = {rank: config.addresses[server] for rank, server in peers.items()}
        self._controller.send(
            encode(
                GroupUp(
                    group=name,
                    rank=config.rank,
                    server=config.servers[config.rank],
                    peers=peers,
                    connections=by_peer(connections, addresses),
                )
            )
        )
        return CollectiveGroup(
            name,
            group,
            members,
            config.rank,
            self._payloads,
            self._device,
            staged=opened.backend == "gloo",
        )
