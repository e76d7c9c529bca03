"""One simulated run: requests in, a record out. Deterministic; needs neither root nor other programs."""

import time
from collections.abc import Callable

import msgspec

from controller.flow import Stage
from controller.overload import Prunings
from controller.policy import Policy, weights_of
from controller.spec import Spec, read_spec
from controller.units import NS_PER_S
from testbed.fabric import FabricName, RunProgress
from testbed.job import Collect, Job, SimulationOptions
from testbed.record import FlowOrder, RunRecord
from testbed.serving.conductors import conductor_of
from testbed.simulation._core import Core, Options
from testbed.simulation.connections import ordered_ports, ports_of_network
from testbed.simulation.faults import plan_faults
from testbed.simulation.host import STAGES, Host
from testbed.simulation.invariants import judge
from testbed.simulation.links.network import weight_list
from testbed.simulation.player import Player
from testbed.simulation.rows import Rows
from testbed.simulation.watch import LinkWatch
from workers.plan import CollectiveKind


class SimulatedRun:
    """Runs `job` to its end, under `policy` instead of the policy of the job if it is given.

    The event loop is compiled (`core/core.hpp`).
    """

    def __init__(
        self, job: Job, progress: Callable[[RunProgress], None], policy: Policy | None = None
    ) -> None:
        self._job = job
        self._progress = progress
        self._begun = time.monotonic()
        if policy is None:
            spec = read_spec(job.policy, **job.scheduler.defaults())
        else:
            spec = Spec(policy=policy, control=None)
        links = [link.id for link in job.topology.links]
        ports = ports_of_network(job)
        overheads = job.simulation.overheads
        self._prunings = Prunings()
        scheduler = spec.scheduler(
            {link.id: link.bps for link in job.topology.links},
            self._prunings.changed,
            exact=job.simulation.exact,
            hybrid=job.simulation.hybrid,
        )
        # With links for each stage, S3 meets only what is on its own.
        apart = STAGES.index(Stage.P2D) * len(links) if job.simulation.separate else 0
        numbers = {link: apart + number for number, link in enumerate(links)}
        self._conductor = conductor_of(job, lambda port: self.core.busy_ns(numbers[port]) / NS_PER_S)
        self._player = Player(job, self._conductor, self._report)
        self._rows = Rows(job)
        self._watch = LinkWatch(tuple(ports))
        host = Host(job, scheduler, self._player, self._rows, self._watch)
        capacity = [bps * overheads.goodput / 8e9 for bps in ports.values()]
        options = _options(job, host)
        options.level_weights = weight_list(weights_of(spec.policy))
        options.ordered_ports = ordered_ports(job)
        options.counts_bytes = scheduler.hand_over_bytes()
        self.core = Core(capacity, overheads.level_share, links, options, host, scheduler.loads)
        self.core.set_enums(list(STAGES), list(CollectiveKind))
        for name, ranks in job.placement.groups.items():
            self.core.add_group(name, list(ranks))
        for side in (host, self._rows, self._watch):
            side.serve(self.core)
        plan_faults(self.core, job)

    def run(self) -> RunRecord:
        self._player.begin(self.core)
        self.core.run()
        self.core.flush()
        return self._record()

    def _report(self, progress: RunProgress) -> None:
        self._progress(msgspec.structs.replace(progress, wall_s=time.monotonic() - self._begun))

    def _facts(self) -> dict[str, str | int | float]:
        """How large the run was.

        `moving` is the number of streams on their way, on average over model time. `settlings` is how often
        rates were worked out, and `worked_out` is for how many streams in all.
        """
        core = self.core
        return {
            "events": core.events,
            "messages": core.messages,
            "moving": round(core.moving / max(1, core.now_ns), 2),
            "settlings": core.settlings,
            "worked_out": core.worked_out,
        }

    def _record(self) -> RunRecord:
        job, core = self._job, self.core
        core.settle()
        requests = self._conductor.request_rows(self._prunings.times, self._prunings.at_their_end)
        answered = sum(row.first_token_ns is not None or row.lost_to is not None for row in requests)
        fidelity = judge(
            core,
            arrived=len(job.flows or job.requests),
            ended=len(self._rows.flows) if job.flows else answered,
            completed=len(self._rows.flows),
        )
        links = self._watch.rows(core.now_ns)
        wall_s = time.monotonic() - self._begun
        return RunRecord(
            policy=job.policy,
            fabric=FabricName.SIM,
            requests=requests,
            flows=self._rows.flows,
            decisions=self._rows.decisions,
            spans=self._rows.spans,
            links=links,
            progress=(),
            permit_latency_ms=(),
            fidelity=fidelity,
            facts=self._facts(),
            queues={},
            duration_ns=core.now_ns,
            wall_s=wall_s,
            order=_order(job.simulation),
            batches_at_once=job.placement.most_stages,
            caches=self._conductor.caches(),
            faults=job.faults,
        )


def _order(simulation: SimulationOptions) -> FlowOrder:
    if simulation.hybrid:
        return FlowOrder.HYBRID
    return FlowOrder.EXACT if simulation.exact else FlowOrder.LEVELS


def _options(job: Job, host: Host) -> Options:
    simulation, overheads = job.simulation, job.simulation.overheads
    options = Options()
    options.permit_ns = overheads.permit_ns
    options.permit_kept_ns = overheads.permit_kept_ns
    options.transfer_ns = overheads.transfer_ns
    options.collective_ns = overheads.collective_ns
    options.round_ns = overheads.round_ns
    options.compute_ns = overheads.compute_ns
    options.burst_bytes = overheads.burst_bytes
    options.all_to_all_goodput = overheads.all_to_all_goodput
    options.progress_ns = simulation.progress_ns
    options.exact = simulation.exact
    options.lanes = simulation.lanes
    options.by_flow = host.by_flow
    options.grouped = simulation.grouped
    options.separate = simulation.separate
    # A micro workload can have hundreds of thousands of flows on few pairs of ports. Serving runs do without,
    # so that their numbers do not depend on how bundles round.
    options.bundled = bool(job.flows)
    options.groups = host.by_group
    options.invariants = simulation.invariants
    options.decisions = job.collect is Collect.ALL
    return options
