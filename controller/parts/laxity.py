"""The latest start of a flow, which `llf` and `reverse` order by.

Rules: docs/policies/llf.md. It is as exact as `Flow.downstream_ns` and `BatchRequest.tail_ns`, the times on
idle links of what comes after the flow.
"""

from controller.flow import BatchRequest, Stage
from controller.ports import PortLoads, left_on
from controller.urgency import latest_finish_ns, rli, transfer_ns
from controller.view import ActiveFlow


def waiting_requests(flow: ActiveFlow) -> tuple[BatchRequest, ...]:
    """The requests that wait for `flow`: its own, or all requests of its batch for a collective.

    If a flow names a request that is not in its batch, all requests of the batch count as waiting.
    """
    if flow.batch is None:
        return ()
    requests = flow.batch.batch.requests
    own = tuple(request for request in requests if request.id == flow.flow.request)
    return own or requests


def latest_finishes_ns(flow: ActiveFlow) -> list[int]:
    """When `flow` must have arrived, for each request that waits for it, in ascending order.

    With a deadline of its own (S3): `deadline - downstream`. Otherwise, for each request, `deadline - tail
    - downstream`: the request's last S3 and its first decode step follow the batch's compute. Empty if no
    deadline is known.
    """
    downstream_ns = flow.flow.downstream_ns
    if flow.flow.deadline_ns is not None:
        return [latest_finish_ns(flow.flow.deadline_ns, downstream_ns)]
    return sorted(
        latest_finish_ns(request.deadline_ns, request.tail_ns + downstream_ns)
        for request in waiting_requests(flow)
    )


def needed_ns(flow: ActiveFlow) -> int | None:
    """When compute would begin to wait for `flow` if nothing delayed it; None for S3 and without a batch.

    For S2, and S1 without a layer, it is the submission. For S1 of layer l it is when the batch gets there,
    RLI * t after the submission. t is the time of one layer on idle links: the flow's downstream / (L - l).
    """
    if flow.batch is None or flow.flow.stage is Stage.P2D:
        return None
    if flow.flow.stage is Stage.COLLECTIVE or flow.flow.layer is None:
        return flow.submitted_ns
    to_come = max(1, flow.batch.batch.layers - flow.flow.layer)
    return flow.submitted_ns + rli(flow.flow.layer, flow.batch.layer) * flow.flow.downstream_ns // to_come


def alone_ns(flow: ActiveFlow, ports: PortLoads, bytes_left: int) -> int:
    """Time to send `bytes_left` of the flow alone on its ports; the slowest port counts."""
    return max(
        (transfer_ns(left_on(flow.flow, port, bytes_left), ports.bps(port)) for port in flow.flow.load),
        default=0,
    )


def latest_start_ns(flow: ActiveFlow, ports: PortLoads, *, stall: bool) -> int | None:
    """The latest start of `flow`; None if nothing bounds it.

    With `stall`, the time at which compute would begin to wait for the flow counts as a deadline too.
    """
    due_ns = latest_finishes_ns(flow)[:1]
    needed = needed_ns(flow) if stall else None
    if needed is not None:
        due_ns.append(needed)
    if not due_ns:
        return None
    return min(due_ns) - alone_ns(flow, ports, flow.flow.size_bytes)
