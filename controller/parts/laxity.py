"""When a flow must start at the latest: what `llf` and `reverse` order by.

Rules: docs/policies/llf.md. Exact where the runtime's outlook is: `Flow.downstream_ns` and
`BatchRequest.tail_ns` are what comes after the flow on idle links.
"""

from controller.flow import BatchRequest, Stage
from controller.ports import PortLoads, left_on
from controller.urgency import latest_finish_ns, rli, transfer_ns
from controller.view import ActiveFlow


def waiting_requests(flow: ActiveFlow) -> tuple[BatchRequest, ...]:
    """The requests that wait for `flow`: its own, or for a collective all of its batch.

    A flow that names a request its batch does not know is taken for one of the whole batch.
    """
    if flow.batch is None:
        return ()
    requests = flow.batch.batch.requests
    own = tuple(request for request in requests if request.id == flow.flow.request)
    return own or requests


def latest_finishes_ns(flow: ActiveFlow) -> list[int]:
    """When `flow` must have arrived, for each request that waits for it; ascending.

    With a deadline of its own (S3): `deadline - downstream`. Else, per request, `deadline - tail -
    downstream`: after the batch's compute comes the request's last S3 and its first decode step.
    Empty where no deadline is known.
    """
    downstream_ns = flow.flow.downstream_ns
    if flow.flow.deadline_ns is not None:
        return [latest_finish_ns(flow.flow.deadline_ns, downstream_ns)]
    return sorted(
        latest_finish_ns(request.deadline_ns, request.tail_ns + downstream_ns)
        for request in waiting_requests(flow)
    )


def needed_ns(flow: ActiveFlow) -> int | None:
    """When compute would begin to wait for `flow`, had nothing held it up; None for S3.

    S2 at once. S1 of layer l when its batch gets there, at a layer's time t on idle links per layer
    from the one it is at: its downstream is (L - l) t.
    """
    if flow.batch is None or flow.flow.stage is Stage.P2D:
        return None
    if flow.flow.stage is Stage.COLLECTIVE or flow.flow.layer is None:
        return flow.submitted_ns
    to_come = max(1, flow.batch.batch.layers - flow.flow.layer)
    return flow.submitted_ns + rli(flow.flow.layer, flow.batch.layer) * flow.flow.downstream_ns // to_come


def alone_ns(flow: ActiveFlow, ports: PortLoads, bytes_left: int) -> int:
    """Time to send `bytes_left` of the flow with its ports to itself: that of the slowest port."""
    return max(
        (transfer_ns(left_on(flow.flow, port, bytes_left), ports.bps(port)) for port in flow.flow.load),
        default=0,
    )


def latest_start_ns(flow: ActiveFlow, ports: PortLoads, *, stall: bool) -> int | None:
    """When `flow` must start at the latest; None for a flow that has all the time there is.

    With `stall` the moment at which compute would wait for it counts as a deadline too.
    """
    due_ns = latest_finishes_ns(flow)[:1]
    needed = needed_ns(flow) if stall else None
    if needed is not None:
        due_ns.append(needed)
    if not due_ns:
        return None
    return min(due_ns) - alone_ns(flow, ports, flow.flow.size_bytes)
