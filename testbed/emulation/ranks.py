"""The processes of the ranks in a sandbox: a zygote forks them into their servers' network namespaces."""

import importlib.metadata
import os
import subprocess
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import msgspec

from controller.wire import LocalHub
from testbed.coordinator.memory import MemoryKills
from testbed.coordinator.rank_sizes import layer_sizes, page_bytes
from testbed.coordinator.ranks import Ranks
from testbed.coordinator.silence import PATIENCE_S
from testbed.emulation.endpoints import Endpoints
from testbed.emulation.network import Network
from testbed.emulation.processes import stopped
from testbed.emulation.zygote import Zygote
from testbed.fabric import RunFailed
from testbed.faults import slowdowns_of
from testbed.job import Job
from testbed.readable import readable
from workers.options import ComputeMode
from workers.process import words_of_exit
from workers.protocol import RankConfig

_STORE_PORT = 29500
_IMPORT_S = 120.0


class RankProcesses(Ranks):
    """Starts the ranks and exchanges messages with them. They are forked from `zygote`."""

    def __init__(self, job: Job, directory: Path, zygote: Zygote) -> None:
        self._endpoints = Endpoints(directory)
        outs = {str(r.rank): self._endpoints.from_coordinator(r.rank) for r in job.placement.ranks}
        super().__init__(job, LocalHub(self._endpoints.to_coordinator, outs))
        self._memory = MemoryKills()
        self._checks: tuple[Callable[[], None], ...] = ()
        self.torch_version = importlib.metadata.version("torch")
        self._zygote = zygote

    def start(self, net: Network, checks: Sequence[Callable[[], None]]) -> None:
        """Fork the ranks into their servers' network namespaces.

        Until the clock starts, `checks` are made with each `check`: they raise `RunFailed` if something that
        ranks connect through does not work.
        """
        assert self._zygote.stdin is not None
        assert self._zygote.stdout is not None
        if not readable(self._zygote.stdout, _IMPORT_S):
            raise RunFailed(f"the workers' parent process has not imported torch within {_IMPORT_S:.0f} s")
        if self._zygote.stdout.readline().strip() != b"ready":
            raise RunFailed(f"the workers' parent process did not start: {self._end_of_zygote()}")
        os.set_blocking(self._zygote.stdout.fileno(), False)
        raw = msgspec.msgpack.encode([self._config(net, r.rank) for r in self._job.placement.ranks])
        self._zygote.stdin.write(len(raw).to_bytes(8, "big") + raw)
        self._zygote.stdin.flush()
        self._checks = tuple(checks)

    def _config(self, net: Network, rank: int) -> RankConfig:
        job = self._job
        server = job.placement.server_of(rank)
        options = job.workers
        return RankConfig(
            rank=rank,
            servers=tuple(r.server for r in job.placement.ranks),
            addresses={name: host.ip for name, host in net.wiring.hosts.items()},
            interface=net.host_devices[server],
            namespace_pid=net.host_pids[server],
            store_host=net.wiring.hosts[job.placement.server_of(0)].ip,
            store_port=_STORE_PORT,
            lanes=self._lanes,
            probes=self._probes,
            groups=job.placement.groups,
            time_dilation=job.scale.time_dilation,
            bytes_scale=job.scale.bytes_scale,
            chunk_bytes=options.chunk_bytes,
            verify_share=options.verify_share,
            seed=job.seed,
            device=job.workers.device,
            compute=options.compute,
            slowdowns=slowdowns_of(job.faults, rank),
            model=self._model,
            page_bytes=page_bytes(job, rank),
            layer=layer_sizes(job, rank) if options.compute is ComputeMode.KERNELS else None,
            to_controller=self._endpoints.to_controller,
            from_controller=self._endpoints.from_controller(str(rank)),
            to_coordinator=self._endpoints.to_coordinator,
            from_coordinator=self._endpoints.from_coordinator(rank),
        )

    def asleep(self) -> Collection[str]:
        return stopped().values()

    def check_processes(self) -> None:
        """Raise `RunFailed` if a rank or the zygote has died, or if one of the `checks` of `start` does."""
        assert self._zygote.stdout is not None
        word = self._zygote.stdout.read()
        if word:
            raise RunFailed(word.decode(errors="replace").strip() + self._memory.note())
        if self._zygote.poll() is not None:
            raise RunFailed(f"the workers' parent process ended: {self._end_of_zygote()}")
        for check in self._checks:
            check()

    def _end_of_zygote(self) -> str:
        """How it ended. It has closed its output, so it is about to."""
        try:
            how = words_of_exit(self._zygote.wait(PATIENCE_S))
        except subprocess.TimeoutExpired:
            how = "it says nothing more"
        return f"{how}{self._memory.note()}"

    def start_clock(self, zero_wall_ns: int) -> None:
        self._checks = ()
        super().start_clock(zero_wall_ns)
