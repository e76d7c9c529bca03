"""One simulated run: requests in, a record out. Deterministic; needs nothing but Python."""

import time
from collections.abc import Callable

from controller.policies.spec import read_spec
from controller.scheduler import Scheduler
from testbed.fabric import Progress, RunFailed
from testbed.job import Job
from testbed.record import RunRecord
from testbed.serving.story import request_row
from testbed.simulation.clock import Agenda
from testbed.simulation.network import FluidNetwork
from testbed.simulation.ranks import MicroRanks, ServingRanks
from testbed.simulation.transport import Transport
from testbed.simulation.watch import LinkWatch, judge

_REPORT_S = 0.5


class SimulatedRun:
    """Plays `job` to its end.

    In one nanosecond: what is due runs, in the order it was planned; then the scheduler looks; then
    the links share anew. So what happens at one moment is known before anything moves.
    """

    def __init__(self, job: Job, progress: Callable[[Progress], None]) -> None:
        self._job = job
        self._progress = progress
        self._begun = self._reported = time.monotonic()
        options = {name: getattr(job.scheduler, name) for name in job.scheduler.__struct_fields__}
        spec = read_spec(job.policy, **options)
        self._agenda = Agenda()
        ports = {link.id: link.bps for link in job.topology.links}
        self._network = FluidNetwork(ports)
        self._scheduler = Scheduler(
            spec.policy, ports=ports, exact=job.simulation.exact, control=spec.control
        )
        self._transport = Transport(job, self._scheduler, self._network, self._agenda)
        ranks = MicroRanks if job.flows else ServingRanks
        self._ranks = ranks(job, self._scheduler, self._transport, self._agenda)
        self._watch = LinkWatch(self._network)
        self._progress_due_ns = 0

    def run(self) -> RunRecord:
        self._ranks.begin()
        events = 0
        while self._ranks.done < self._ranks.total:
            events += self._moment()
        return self._record(events)

    def _moment(self) -> int:
        """Everything that happens in the next nanosecond in which something does."""
        agenda, network = self._agenda, self._network
        events = 0
        while True:
            act = agenda.take_due()
            if act is None:
                break
            act()
            events += 1
        network.settle(agenda.now_ns)
        self._watch.look(agenda.now_ns)
        times = [t for t in (agenda.next_ns(), network.next_end_ns(), self._look_ns()) if t is not None]
        if not times:
            if self._ranks.done == self._ranks.total:
                return events
            raise RunFailed("nothing moves and nothing is to come: a bug")
        agenda.now_ns = max(agenda.now_ns, min(times))
        finished = network.take_finished(agenda.now_ns)
        self._transport.finished(finished)
        look_ns = self._look_ns()
        if look_ns is not None and look_ns <= agenda.now_ns:
            self._look()
        self._report()
        return events + len(finished)

    def _look_ns(self) -> int | None:
        """When the scheduler is to look next, or to be told how far the flows are."""
        tick_ns = self._scheduler.next_tick_ns()
        due_ns = self._progress_due_ns if self._network.streams else None
        return min((t for t in (tick_ns, due_ns) if t is not None), default=None)

    def _look(self) -> None:
        now_ns = self._agenda.now_ns
        if now_ns >= self._progress_due_ns:
            self._transport.report_progress()
            self._progress_due_ns = now_ns + self._job.simulation.progress_ns
        self._transport.obey(self._scheduler.tick(now_ns))

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported >= _REPORT_S:
            self._reported = now
            self._progress(
                Progress(
                    phase="running",
                    done=self._ranks.done,
                    total=self._ranks.total,
                    wall_s=now - self._begun,
                )
            )

    def _record(self, events: int) -> RunRecord:
        job = self._job
        ends = [flow.finish_ns for flow in self._transport.flows]
        requests = tuple(request_row(request, self._ranks.stories[request.id]) for request in job.requests)
        ends += [row.first_token_ns for row in requests if row.first_token_ns is not None]
        end_ns = max(ends, default=0)
        self._network.settle(self._agenda.now_ns)
        fidelity = judge(
            job.topology,
            self._transport.flows,
            self._transport.carried,
            self._network.sent_bytes(self._agenda.now_ns),
            arrived=self._ranks.total,
            done=self._ranks.done,
            end_ns=end_ns,
        )
        wall_s = time.monotonic() - self._begun
        return RunRecord(
            policy=job.policy,
            fabric="sim",
            requests=requests,
            flows=tuple(sorted(self._transport.flows, key=lambda row: (row.submit_ns, row.id))),
            decisions=tuple(self._transport.decisions),
            spans=tuple(self._ranks.spans),
            links=self._watch.rows(end_ns),
            progress=(),
            permit_latency_ms=(),
            fidelity=fidelity,
            facts={"events": events},
            queues={},
            duration_ns=end_ns,
            wall_s=wall_s,
            exact_order=job.simulation.exact,
        )
