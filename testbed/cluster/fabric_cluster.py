"""Entry point of the fabric `cluster`: checks what it needs, and runs jobs on the servers of an inventory."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import zmq

from controller.curve_files import coordinator_keys
from controller.gate import let_in
from controller.sources import CODE_ROOT, source_digest
from testbed.cluster.agents import AgentDesk, Expected, agent_name, cannot_listen
from testbed.cluster.assignment import assign
from testbed.cluster.elastic import in_words, still_there, without
from testbed.cluster.examination import Examined, examine
from testbed.cluster.inventory import Inventory
from testbed.cluster.run import Cluster, ClusterRun
from testbed.fabric import FabricName, FabricUnavailable, Requirement, RunFailed, RunProgress
from testbed.job import Job
from testbed.record import RunRecord

WAIT_S = 600.0
"""How long a run waits for its agents."""


class ClusterFabric:
    """Real servers. Agents register once, and stay for all jobs, until `close`.

    `job` is the digest that agents have to have been started with. `log` is called, in other threads, with
    refused peers and agents that leave. If `elastic` is set, a job whose ranks are killed, or whose servers
    are gone, begins again without their units and decode workers, and so do the jobs after it.
    """

    name: str = FabricName.CLUSTER

    def __init__(
        self,
        inventory: Inventory | None = None,
        *,
        job: str = "",
        wait_s: float = WAIT_S,
        elastic: bool = False,
        log: Callable[[str], None] = print,
    ) -> None:
        self._inventory = inventory
        self._job = job
        self._wait_s = wait_s
        self._elastic = elastic
        self._lost: set[int] = set()
        self._log = log
        self._cluster: Cluster | None = None
        self._stop_gate: Callable[[], None] = lambda: None
        self._failed = True

    def requirements(self) -> list[Requirement]:
        inventory = self._inventory
        if inventory is None:
            return [
                Requirement(
                    name="inventory",
                    ok=False,
                    detail="the fabric cluster is run by `mfs run` with --inventory",
                    fix="mfs run SCENARIO --fabric cluster --inventory cluster.yaml",
                )
            ]
        try:
            coordinator_keys(Path(inventory.keys))
            keys = Requirement(name="keys", ok=True, detail=inventory.keys)
        except (OSError, ValueError) as error:
            keys = Requirement(
                name="keys", ok=False, detail=str(error), fix=f"mfs cluster keys {inventory.keys}"
            )
        curve = zmq.has("curve")
        setpriv = shutil.which("setpriv")
        return [
            keys,
            Requirement(
                name="CURVE in ZeroMQ",
                ok=curve,
                detail="yes" if curve else "this libzmq was built without it",
                fix="" if curve else "pip install --force-reinstall pyzmq",
            ),
            Requirement(
                name="setpriv",
                ok=setpriv is not None,
                detail=setpriv or "not on the PATH",
                fix="" if setpriv else "apt-get install util-linux",
            ),
        ]

    def run(self, job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
        missing = [requirement for requirement in self.requirements() if not requirement.ok]
        if missing or self._inventory is None:
            raise FabricUnavailable(self.name, missing)
        assigned = assign(job, self._inventory)
        cluster = self._opened(self._inventory)
        self._failed = True
        left = without(job, self._lost) or job
        while True:
            with tempfile.TemporaryDirectory(prefix="mfs-cluster-") as directory:
                run = ClusterRun(left, still_there(assigned, left), cluster, Path(directory), progress)
                try:
                    record = run.run()
                    break
                except RunFailed as failure:
                    left = self._after(failure, run, left)
        self._failed = False
        return record

    def _after(self, failure: RunFailed, run: ClusterRun, job: Job) -> Job:
        """Return what is left of `job` after `failure`, or raise it if nothing is, or nobody was lost."""
        if not self._elastic:
            raise failure
        lost = run.lost()
        left = without(job, lost.keys())
        if left is None:
            raise failure
        self._lost |= lost.keys()
        self._log(
            f"{job.policy}: {'; '.join(dict.fromkeys(lost.values()))}. The policy begins again without"
            f" {in_words(left)}, and those after it do without, too"
        )
        return left

    def examine(self, job: Job, say: Callable[[str], None]) -> Examined:
        """Examine the servers of `job` instead of running it. Raises what `run` does."""
        missing = [requirement for requirement in self.requirements() if not requirement.ok]
        if missing or self._inventory is None:
            raise FabricUnavailable(self.name, missing)
        assigned = assign(job, self._inventory)
        desk = self._opened(self._inventory).desk
        names = {agent_name(place) for place in assigned.places.values()}
        say(f"waiting for the agents {', '.join(sorted(names))}")
        desk.wait_for(names, self._wait_s, lambda missing: None)
        examined = examine(desk, job, assigned, self._inventory, say)
        self._failed = False
        return examined

    def close(self) -> None:
        """Dismiss the agents, if they were waited for."""
        if self._cluster is not None:
            self._cluster.desk.close(failed=self._failed)
            self._stop_gate()
            self._cluster = None

    def _opened(self, inventory: Inventory) -> Cluster:
        """Listen for agents, from the first job on."""
        if self._cluster is not None:
            return self._cluster
        keys, own = coordinator_keys(Path(inventory.keys))
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        expected = Expected(
            hosts=frozenset(server.host for server in inventory.servers),
            job=self._job,
            source=source_digest(CODE_ROOT),
        )
        desk = AgentDesk(expected, self._log)
        gate = let_in(context, keys, self._log)
        endpoint = inventory.endpoint(0, listen=True)
        try:
            with cannot_listen(endpoint):
                desk.start(context, endpoint, keys)
        except RunFailed:
            gate.stop()
            raise
        self._stop_gate = gate.stop
        self._cluster = Cluster(inventory, desk, context, keys, own, self._wait_s, self._log)
        return self._cluster
