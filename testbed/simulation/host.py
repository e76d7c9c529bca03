"""What the compiled core calls: the scheduler, the paths of connections, and where rows are kept."""

from collections.abc import Mapping, Sequence

from controller.flow import Flow, PortId, Stage, Transfer
from controller.policy import Verdict
from controller.scheduler import Scheduler
from testbed.job import Job
from testbed.lane_counts import LaneCounts
from testbed.simulation._core import Core
from testbed.simulation.collectives import Structure, even, structure
from testbed.simulation.connections import Connections, Route
from testbed.simulation.player import Player
from testbed.simulation.rows import Rows
from testbed.simulation.watch import LinkWatch
from workers.plan import Collective

STAGES = tuple(Stage)


class Host:
    """The Python side of the core of one run. The methods are called by the core (`core/world.hpp`).

    Stages are their places in `Stage`, times are model nanoseconds.
    """

    def __init__(self, job: Job, scheduler: Scheduler, player: Player, rows: Rows, watch: LinkWatch) -> None:
        self._grouped = job.simulation.grouped
        self._lane_counts = LaneCounts(job)
        self._scheduler = scheduler
        self._first_verdict = scheduler.first_verdict
        self._connections = Connections(job)
        self.by_flow = self._connections.by_flow
        self.by_group = scheduler.by_group and bool(job.flows) and not job.simulation.hybrid
        # Bound methods of others, where there is nothing to add.
        self.completion = scheduler.completion
        self.progress = scheduler.progress
        self.tick = scheduler.tick
        self.next_tick_ns = scheduler.next_tick_ns
        self.layer_advanced = scheduler.layer_advanced
        self.batch_started = scheduler.batch_started
        self.layer_begun = player.layer_begun
        self.paused = player.paused
        self.rank_done = player.rank_done
        self.first_token = player.first_token
        self.arrived = player.arrived
        self.finished = player.finished
        self.stuck = player.stuck
        self.report = player.report
        self.look = watch.look
        self.flows = rows.flows_in
        self.decisions = rows.decisions_in
        self.spans = rows.spans_in

    def serve(self, core: Core) -> None:
        """Belong to `core` from now on."""
        self._connections.serve(core)
        if self.by_group:
            self._scheduler.move_groups(core.left_on_ports)

    # --- paths ----------------------------------------------------------------------------------

    def lane_routes(self, stage: int, src: int, dst: int) -> list[Route]:
        """The route of each lane between two ranks for a stage."""
        which = STAGES[stage]
        count = self._lane_counts.of(which, src, dst)
        return self._connections.of_lanes(which, src, dst, count)

    def flow_route(self, flow: str, stage: int, src: int, dst: int, size: int) -> Route:
        return self._connections.of_flow(flow, STAGES[stage], src, dst, size)

    def member_routes(self, group: str, index: int) -> list[Route]:
        return self._connections.of_member(group, index)

    def share_routes(self, flow: str, group: str, index: int, sizes: Mapping[int, int]) -> list[Route]:
        return self._connections.of_share(flow, group, index, sizes)

    # --- collectives ----------------------------------------------------------------------------

    def structure(self, step: Collective, members: int) -> tuple[Structure, Sequence[int], bool]:
        """The rounds of a collective, the sizes of its parts, and whether it goes as one stream."""
        return structure(step.rounds(members)), step.parts(members), self._grouped and even(step, members)

    def transfer_of(
        self, step: Collective, index: int, rank: int, size: int, batch: str, layer: int, whole: bool
    ) -> Transfer:
        """A share of a collective as a flow, or all of them as one."""
        if whole:
            return step.whole(rank, size, batch=batch, layer=layer)
        return step.share(index, rank, size, batch=batch, layer=layer)

    # --- scheduling -----------------------------------------------------------------------------

    def standing(self, stage: int, batch: str | None) -> tuple[int, float, int | None, str] | None:
        """The verdict on every flow of a stage of a batch, if there is one: level, order, rate, reason."""
        verdict = self._scheduler.standing(STAGES[stage], batch)
        return None if verdict is None else (verdict.level, verdict.order, verdict.rate_bps, verdict.reason)

    def submit(self, now_ns: int, transfer: Transfer, load: Mapping[PortId, int]) -> Verdict:
        return self._first_verdict(now_ns, Flow.of(transfer, load))
