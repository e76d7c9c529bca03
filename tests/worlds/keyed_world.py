"""Two ports and short flows, for tests of policies that order flows by a key."""

from collections.abc import Iterable, Mapping

from controller.flow import Assignment, Batch, BatchRequest, Flow, Stage
from controller.policies import make_policy
from controller.scheduler import Scheduler

UP, DOWN = "h1->s1", "s1->h2"
PORTS = {UP: 8_000_000_000, DOWN: 4_000_000_000}  # 1 MB and 0.5 MB in a millisecond
MS = 1_000_000
MB = 1_000_000


def scheduler(spec: str, *, exact: bool = False) -> Scheduler:
    return Scheduler(make_policy(spec), ports=PORTS, exact=exact)


def s3(name: str, *, size_mb: int = 1, due_ms: int | None = None, after_ms: int = 0) -> Flow:
    return Flow(
        id=name,
        stage=Stage.P2D,
        size_bytes=size_mb * MB,
        load={UP: size_mb * MB},
        deadline_ns=None if due_ms is None else due_ms * MS,
        downstream_ns=after_ms * MS,
    )


def early(
    name: str, stage: Stage, *, request: str | None = None, after_ms: int = 0, layer: int | None = None
) -> Flow:
    return Flow(
        id=name,
        stage=stage,
        size_bytes=MB,
        load={UP: MB},
        batch="b",
        request=request,
        layer=layer,
        downstream_ns=after_ms * MS,
    )


def with_batch(spec: str, due_ms: Mapping[str, int], *, tail_ms: int = 0, exact: bool = True) -> Scheduler:
    core = scheduler(spec, exact=exact)
    requests = tuple(
        BatchRequest(id=name, deadline_ns=at_ms * MS, tail_ns=tail_ms * MS) for name, at_ms in due_ms.items()
    )
    core.batch_started(0, Batch(id="b", layers=4, requests=requests))
    return core


def first(core: Scheduler, flow: Flow, at_ms: int = 0) -> Assignment:
    return core.submit(at_ms * MS, flow)[0]


def order_of(core: Scheduler, flows: Iterable[Flow]) -> list[str]:
    """Names of flows in the order that the scheduler gives them; no two may be equal."""
    orders = {flow.id: first(core, flow).order for flow in flows}
    assert len(set(orders.values())) == len(orders)
    return sorted(orders, key=lambda name: orders[name])
