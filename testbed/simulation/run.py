"""One simulated run: requests in, a record out. Deterministic; needs neither root nor other programs."""

import time
from collections.abc import Callable

from controller.overload import Prunings
from controller.spec import read_spec
from testbed.fabric import FabricName, RunFailed, RunProgress
from testbed.job import Collect, Job
from testbed.record import RunRecord
from testbed.serving.conductors import conductor_of
from testbed.simulation.agenda import Agenda
from testbed.simulation.connections import ports_of_network
from testbed.simulation.invariants import Invariants
from testbed.simulation.links.network import FluidNetwork
from testbed.simulation.player import Player
from testbed.simulation.transport import Transport
from testbed.simulation.watch import LinkWatch

_REPORT_S = 0.5


class SimulatedRun:
    """Runs `job` to its end.

    In one nanosecond, the streams that have ended are taken first. Then the scheduler's tick runs, if it is
    due, then all acts that are due, in the order in which they were planned. Last, the links share their
    rates anew. So all that happens at one moment is known before anything moves.
    """

    def __init__(self, job: Job, progress: Callable[[RunProgress], None]) -> None:
        self._job = job
        self._progress = progress
        self._begun = self._reported = time.monotonic()
        spec = read_spec(job.policy, **job.scheduler.defaults())
        self._agenda = Agenda()
        ports = {link.id: link.bps for link in job.topology.links}
        overheads = job.simulation.overheads
        self._network = FluidNetwork(
            {port: bps * overheads.goodput for port, bps in ports_of_network(job).items()},
            guarantee=overheads.level_share,
        )
        self._prunings = Prunings()
        scheduler = spec.scheduler(ports, self._prunings.changed, exact=job.simulation.exact)
        self._invariants = Invariants(self._network, on=job.simulation.invariants)
        self._transport = Transport(job, scheduler, self._network, self._agenda, self._invariants)
        self._conductor = conductor_of(job)
        self._player = Player(job, self._conductor, self._transport, self._agenda)
        self._watch = LinkWatch(self._network, keep=job.collect is Collect.ALL)
        self._progress_due_ns = 0
        self._moving = 0

    def run(self) -> RunRecord:
        self._player.begin()
        events = 0
        while not self._conductor.finished or len(self._network):
            events += self._step()
        return self._record(events)

    def _step(self) -> int:
        """The acts that are due now. Then time moves on, and the streams that end and the tick follow.

        Returns the number of events.
        """
        agenda, network = self._agenda, self._network
        events = 0
        while (act := agenda.take_due()) is not None:
            act()
            events += 1
        if self._conductor.finished and not len(network):
            return events  # that was the last moment
        before_ns = agenda.now_ns
        network.settle(before_ns)
        if self._watch.look(before_ns):
            self._invariants.sample()
        times = [t for t in (agenda.next_ns(), network.next_end_ns(), self._look_ns()) if t is not None]
        if not times:
            raise RunFailed(
                "nothing moves and nothing is planned, which is a bug of the simulator:"
                f" {self._conductor.describe()}"
            )
        self._invariants.moment(min(times))
        now_ns = agenda.now_ns = max(before_ns, min(times))
        self._moving += len(network) * (now_ns - before_ns)
        finished = network.take_finished(now_ns)
        if finished:
            self._transport.finished(finished)
        look_ns = self._look_ns()
        if look_ns is not None and look_ns <= now_ns:
            self._look()
        self._report()
        return events + len(finished)

    def _look_ns(self) -> int | None:
        """When the scheduler's next tick or the next progress report is due."""
        tick_ns = self._transport.next_tick_ns()
        if not len(self._network):
            return tick_ns
        # Without streams there are no progress reports, so the next one may be overdue.
        due_ns = max(self._progress_due_ns, self._agenda.now_ns)
        return due_ns if tick_ns is None or due_ns < tick_ns else tick_ns

    def _look(self) -> None:
        now_ns = self._agenda.now_ns
        if now_ns >= self._progress_due_ns:
            self._transport.report_progress()
            self._progress_due_ns = now_ns + self._job.simulation.progress_ns
        self._transport.tick()

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._reported >= _REPORT_S:
            self._reported = now
            self._progress(
                RunProgress(
                    phase="running",
                    done=self._conductor.done,
                    total=self._conductor.total,
                    wall_s=now - self._begun,
                )
            )

    def _facts(self, events: int) -> dict[str, str | int | float]:
        """How large the run was.

        `moving` is the number of streams on their way, on average over model time. `settlings` is how often
        rates were worked out, and `worked_out` is for how many streams in all.
        """
        settlings, worked_out = self._network.worked_out
        return {
            "events": events,
            "messages": self._transport.messages,
            "moving": round(self._moving / max(1, self._agenda.now_ns), 2),
            "settlings": settlings,
            "worked_out": worked_out,
        }

    def _record(self, events: int) -> RunRecord:
        job = self._job
        end_ns = self._agenda.now_ns
        self._network.settle(end_ns)
        requests = self._conductor.request_rows(self._prunings.times, self._prunings.at_their_end)
        answered = sum(row.first_token_ns is not None for row in requests)
        fidelity = self._invariants.judge(
            arrived=len(job.flows or job.requests),
            ended=len(self._transport.flows) if job.flows else answered,
            submitted=self._transport.submitted,
            completed=len(self._transport.flows),
            owed=self._transport.carried(),
            late=self._agenda.late,
            now_ns=end_ns,
        )
        wall_s = time.monotonic() - self._begun
        return RunRecord(
            policy=job.policy,
            fabric=FabricName.SIM,
            requests=requests,
            flows=self._transport.flows,
            decisions=self._transport.decisions,
            spans=self._player.spans,
            links=self._watch.rows(end_ns),
            progress=(),
            permit_latency_ms=(),
            fidelity=fidelity,
            facts=self._facts(events),
            queues={},
            duration_ns=end_ns,
            wall_s=wall_s,
            exact_order=job.simulation.exact,
            batches_at_once=job.placement.pp,
            caches=self._conductor.caches(),
        )
