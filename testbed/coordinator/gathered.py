"""Puts the rows of a run together, as its ranks and its controller report them.

A flow is known to three: its sender, its receiver and the controller. Its row is made when all three have
said what they know of it. Rows are in columns in temporary files, so a long run does not fill the memory.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from controller.flow import ALL_PEERS, Decision
from controller.lanes import LevelTrail
from controller.protocol import Logged, LoggedPath
from testbed.columns import ColumnSpool, in_order
from testbed.coordinator.lines import Crossing
from testbed.fabric import RunFailed
from testbed.job import Job
from testbed.record import FlowRow, ProgressRow, SpanRow
from workers.protocol import ReceivedFlow, Recorded, SentFlow

_BLOCK_ROWS: Final = 1024
"""To write a block holds up the coordinator, with this many rows for a few milliseconds."""


class PermitRow(msgspec.Struct, frozen=True, kw_only=True, array_like=True, gc=False):
    """How long a flow of `rank` waited for its permit, in wall time, without its wait for a lane."""

    flow: str
    rank: int
    submit_ns: int
    lane_wait_ns: int
    latency_wall_ns: int


@dataclass(slots=True)
class _Open:
    """A flow whose row is not complete. `ended` says that the controller knows that it has arrived."""

    trail: LevelTrail = field(default_factory=LevelTrail)
    path: LoggedPath | None = None
    sent: SentFlow | None = None
    received: ReceivedFlow | None = None
    ended: bool = False


class Gathered:
    """The rows of a run of `job`. In memory are the flows that are under way, and the delays of wake-ups."""

    def __init__(self, job: Job) -> None:
        self._server_of = job.placement.server_of
        self._open: dict[str, _Open] = {}
        self._flows: ColumnSpool[FlowRow] = ColumnSpool(FlowRow, block_rows=_BLOCK_ROWS)
        self._spans: ColumnSpool[SpanRow] = ColumnSpool(SpanRow, block_rows=_BLOCK_ROWS)
        self.decisions: ColumnSpool[Decision] = ColumnSpool(Decision, block_rows=_BLOCK_ROWS)
        self.progress: ColumnSpool[ProgressRow] = ColumnSpool(ProgressRow, block_rows=_BLOCK_ROWS)
        self.permits: ColumnSpool[PermitRow] = ColumnSpool(PermitRow, block_rows=_BLOCK_ROWS)
        self.crossings: ColumnSpool[Crossing] = ColumnSpool(Crossing, block_rows=_BLOCK_ROWS)
        """What flows that are done put on ports, in no order."""
        self.permit_ms = array("d")
        """The latencies of `permits`, in wall milliseconds."""
        self.late_ms: dict[int, Sequence[float]] = {}
        """How late the timed waits of each rank ended, in wall milliseconds."""

    # --- as a run goes on -------------------------------------------------------------------------

    def take(self, recorded: Recorded) -> None:
        """Take in what a rank has recorded since it was heard of last."""
        rank = recorded.rank
        late_ms = self.late_ms.setdefault(rank, array("d"))
        assert isinstance(late_ms, array)
        late_ms.extend(recorded.late_wakeups_ms)
        for span in recorded.spans:
            self._spans.append(
                SpanRow(
                    rank=rank,
                    kind=span.kind,
                    label=span.label,
                    batch=span.batch,
                    layer=span.layer,
                    start_ns=span.start_ns,
                    end_ns=span.end_ns,
                )
            )
        for mark in recorded.progress:
            self.progress.append(
                ProgressRow(time_ns=mark.time_ns, flow=mark.flow, received_bytes=mark.received_bytes)
            )
        for sent in recorded.sent:
            self._permitted(rank, sent)
        for received in recorded.received:
            self._of(received.id).received = received
            self._close_if_known(received.id)

    def take_logged(self, logged: Logged) -> None:
        """Take in what the controller has logged since it was heard of last."""
        self.decisions.extend(logged.decisions)
        for decision in logged.decisions:
            self._of(decision.flow).trail.moved_to(decision.level_to)
        for path in logged.paths:
            self._of(path.flow).path = path
        for flow in logged.ended:
            self._of(flow).ended = True
            self._close_if_known(flow)

    # --- at its end -------------------------------------------------------------------------------

    def flows(self) -> ColumnSpool[FlowRow]:
        """Return a row for each flow, in the order of submission.

        Raises `RunFailed` if a flow got its permit and never arrived: the record would be incomplete.
        """
        for flow, known in list(self._open.items()):
            if known.sent is not None:
                self._close(flow, known)
        return in_order(self._flows, FlowRow, "submit_ns", "id")

    def spans(self) -> ColumnSpool[SpanRow]:
        """The spans by their ends, so that those of a unit's batches follow each other (see `RunRecord`)."""
        return in_order(self._spans, SpanRow, "end_ns", "rank")

    # --- inside -----------------------------------------------------------------------------------

    def _of(self, flow: str) -> _Open:
        known = self._open.get(flow)
        if known is None:
            known = self._open[flow] = _Open()
        return known

    def _permitted(self, rank: int, sent: SentFlow) -> None:
        flow, latency_ns = sent.transfer.id, sent.permit_latency_wall_ns
        self.permit_ms.append(latency_ns / 1e6)
        self.permits.append(
            PermitRow(
                flow=flow,
                rank=rank,
                submit_ns=sent.submit_ns,
                lane_wait_ns=sent.lane_wait_ns,
                latency_wall_ns=latency_ns,
            )
        )
        self._of(flow).sent = sent
        self._close_if_known(flow)

    def _close_if_known(self, flow: str) -> None:
        known = self._open[flow]
        if known.ended and known.sent is not None and known.received is not None:
            self._close(flow, known)

    def _close(self, flow: str, known: _Open) -> None:
        sent, received = known.sent, known.received
        assert sent is not None
        if received is None:
            raise RunFailed(f"flow {flow!r} was sent and never arrived")
        if known.path is None:
            raise RunFailed(f"flow {flow!r} was sent, and the controller does not know it")
        del self._open[flow]
        ports = known.path.ports
        transfer = sent.transfer
        self.crossings.append(
            Crossing(
                flow=flow,
                collective=transfer.coflow if transfer.dst == ALL_PEERS else None,
                permit_ns=sent.permit_ns,
                finish_ns=received.finish_ns,
                ports=ports,
                sizes=known.path.sizes or (transfer.size_bytes,) * len(ports),
            )
        )
        self._flows.append(
            FlowRow.of(
                transfer,
                self._server_of,
                submit_ns=sent.submit_ns,
                permit_ns=sent.permit_ns,
                lane_wait_ns=sent.lane_wait_ns,
                finish_ns=received.finish_ns,
                trail=known.trail,
                path=ports,
                verified=received.verified,
            )
        )
