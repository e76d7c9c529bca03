"""Process groups over one network interface, and the TCP connections that each of them opened.

Groups are built directly (`ProcessGroupGloo`) and not through torch's global registry, because a run has
hundreds of two-rank groups, and a rank takes part in its own only.
"""

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import psutil
import torch
import torch.distributed as dist

from controller.protocol import TcpConnection

_FOREVER = timedelta(days=1)  # a lane may be silent for a whole run


class ProcessGroups:
    """Builds the groups of one rank. All their traffic uses the network device `interface`.

    `backend` is the backend of collectives: `nccl` if every rank has a GPU of its own (NCCL refuses to
    share one), else `gloo`. Lanes always use gloo. Tensors on a GPU are staged in the host's memory for it.
    `opened` is called with each new connection and the number of its descriptor in this process.
    """

    def __init__(
        self,
        *,
        store: dist.Store,
        store_port: int,
        interface: str,
        device: torch.device,
        nccl: bool,
        opened: Callable[[TcpConnection, int], None] | None = None,
    ) -> None:
        self._store_port = store_port
        self._store = store
        self._interface = interface
        self.device = device
        self.backend = "nccl" if nccl else "gloo"
        self._gloo_device = dist.ProcessGroupGloo.create_device(interface=interface)
        self._process = psutil.Process()
        self._opened = opened
        self._known = self._connections()

    def lane(self, name: str, rank: int) -> tuple[Any, tuple[TcpConnection, ...]]:
        """Open a two-rank group. `rank` is 0 at the sending end, 1 at the receiving end.

        Blocks until the peer opens it too. Returns the group and its connections.
        """
        return self._gloo(name, rank, 2), self._new_connections()

    def group(self, name: str, rank: int, size: int) -> tuple[Any, tuple[TcpConnection, ...]]:
        """Open a process group for collectives. Blocks until all members do.

        Returns the group and its connections.
        """
        group = self._nccl(name, rank, size) if self.backend == "nccl" else self._gloo(name, rank, size)
        return group, self._new_connections()

    def _gloo(self, name: str, rank: int, size: int) -> Any:
        options = dist.ProcessGroupGloo._Options()
        options._devices = [self._gloo_device]
        options._timeout = _FOREVER
        options._threads = 1
        return dist.ProcessGroupGloo(dist.PrefixStore(name, self._store), rank, size, options)

    def _nccl(self, name: str, rank: int, size: int) -> Any:
        # Traffic must cross the emulated fabric even if NCCL knows a shorter way, and ranks of one
        # server (one namespace) must look like one host to NCCL.
        torch.cuda.set_device(self.device)
        os.environ.setdefault("NCCL_SOCKET_IFNAME", self._interface)
        os.environ.setdefault("NCCL_IB_DISABLE", "1")
        os.environ.setdefault("NCCL_HOSTID", self._interface)
        os.environ.setdefault("NCCL_ALGO", "Ring")  # the plan counts an all-reduce as a ring
        group = dist.ProcessGroupNCCL(
            dist.PrefixStore(name, self._store), rank, size, dist.ProcessGroupNCCL.Options()
        )
        # NCCL connects on first use: a small exchange opens all connections, so that they can be seen.
        probe = torch.zeros(size * 8, dtype=torch.uint8, device=self.device)
        group.alltoall_base(torch.empty_like(probe), probe, [], []).wait()
        group.allreduce([probe.clone()]).wait()
        torch.cuda.synchronize(self.device)
        return group

    def _new_connections(self) -> tuple[TcpConnection, ...]:
        now = self._connections()
        new = {connection: fd for connection, fd in now.items() if connection not in self._known}
        self._known = now
        found = tuple(sorted(new, key=lambda one: (one.src_ip, one.src_port, one.dst_ip, one.dst_port)))
        if self._opened is not None:
            for connection in found:
                self._opened(connection, new[connection])
        return found

    def _connections(self) -> dict[TcpConnection, int]:
        """Established TCP connections of this process to other addresses, without the store's, and their
        descriptors."""
        return {
            TcpConnection(
                src_ip=c.laddr.ip, src_port=c.laddr.port, dst_ip=c.raddr.ip, dst_port=c.raddr.port
            ): c.fd
            for c in self._process.net_connections("tcp4")
            if c.status == psutil.CONN_ESTABLISHED
            and c.raddr
            and c.raddr.ip != c.laddr.ip
            and self._store_port not in (c.laddr.port, c.raddr.port)
        }


def by_peer(
    connections: Sequence[TcpConnection], addresses: dict[int, str]
) -> dict[int, tuple[TcpConnection, ...]]:
    """The connections that lead to each peer rank. `addresses` are the peers' IP addresses by rank.

    Peers on one server share its address and the path to it, so its connections are dealt out in turn.
    """
    found: dict[int, list[TcpConnection]] = {peer: [] for peer in addresses}
    for address in sorted(set(addresses.values())):
        peers = sorted(peer for peer, a in addresses.items() if a == address)
        there = [c for c in connections if c.dst_ip == address]
        for i, connection in enumerate(there):
            found[peers[i % len(peers)]].append(connection)
    return {peer: tuple(c) for peer, c in found.items()}
