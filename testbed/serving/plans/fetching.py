"""When reused KV (S1) is fetched: with its batch, when its request is queued, or layer by layer."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain

import msgspec

from controller.flow import Batch, BatchRequest, Transfer
from testbed.job import Placement
from testbed.serving.plans.idle_network import port_loads, transfer_traffic
from testbed.topology import Topology
from workers.plan import BatchPlan, FetchPlan


def fetch_plan(alone: BatchPlan, replica: Sequence[int]) -> FetchPlan:
    """A fetch plan with the S1 transfers of `alone`, the plan of its request as a batch by itself.

    The plan `alone` never runs. It only serves to estimate what comes after each transfer.
    """
    (request,) = alone.requests
    return FetchPlan(
        id=alone.id,
        unit=alone.unit,
        request=request.request,
        ranks=tuple(replica),
        layers=tuple(layer.wait for layer in alone.layers),
        deadline_ns=request.deadline_ns,
    )


def with_fetches(plan: BatchPlan, fetches: Sequence[FetchPlan], ahead: int | None) -> BatchPlan:
    """Return `plan`, which then waits for the flows of `fetches` too and fetches S1 `ahead` layers ahead.

    `ahead` None: all layers at once.
    """
    if not fetches and ahead is None:
        return plan
    return msgspec.structs.replace(
        plan,
        fetches=tuple(fetch.id for fetch in fetches),
        fetch_ahead=ahead,
        layers=tuple(
            msgspec.structs.replace(
                layer,
                under_way=tuple(chain.from_iterable(fetch.layers[layer.index] for fetch in fetches)),
            )
            for layer in plan.layers
        ),
    )


def announced_fetch(fetch: FetchPlan, topology: Topology, placement: Placement) -> Batch:
    """The batch that stands for `fetch` in the scheduler. It stays at layer 0 while its request is queued.

    Its compute is what the request alone would take from layer 0 on, collectives included. Its load is S1
    only. Everything else belongs to the batch that the request will be in.
    """
    transfers = list(chain.from_iterable(fetch.layers))
    load = port_loads(transfer_traffic(transfers, placement), topology)
    return Batch(
        id=fetch.id,
        layers=len(fetch.layers),
        requests=(
            BatchRequest(
                id=str(fetch.request),
                deadline_ns=fetch.deadline_ns,
                tail_ns=0,
                load={port: round(size) for port, size in load.items()},
            ),
        ),
        compute_ns=max((transfer.downstream_ns for transfer in transfers), default=0),
        load={},
    )


class SendAhead:
    """Decides which fetches start now, `ahead` layers ahead of the batch; None: all at once.

    A queued request, and a batch that has just been formed, are at layer 0.
    """

    def __init__(self, ahead: int | None) -> None:
        self._ahead = ahead
        self._fetches: dict[str, FetchPlan] = {}
        self._later: dict[str, dict[int, tuple[Transfer, ...]]] = {}

    def queued(self, fetch: FetchPlan) -> tuple[Transfer, ...]:
        """The transfers to post, now that a request is queued."""
        if self._ahead is not None:
            self._fetches[fetch.id] = fetch
        return _up_to(self._ahead, enumerate(fetch.layers))

    def formed(self, plan: BatchPlan) -> tuple[Transfer, ...]:
        """The transfers to post, now that a batch is formed."""
        ahead = plan.fetch_ahead
        fetches = [self._fetches.pop(fetch) for fetch in plan.fetches if fetch in self._fetches]
        if ahead is not None:
            later = {
                layer.index: (*layer.wait, *chain.from_iterable(f.layers[layer.index] for f in fetches))
                for layer in plan.layers[ahead + 1 :]
            }
            self._later[plan.id] = {layer: transfers for layer, transfers in later.items() if transfers}
        return _up_to(ahead, ((layer.index, layer.wait) for layer in plan.layers))

    def reached(self, plan: BatchPlan, layer: int) -> tuple[Transfer, ...]:
        """The transfers to post, now that the slowest rank of a batch begins `layer`.

        At the end of the batch, `layer` is its number of layers.
        """
        later = self._later.get(plan.id)
        if later is None or plan.fetch_ahead is None:
            return ()
        due = [number for number in later if number <= layer + plan.fetch_ahead]
        transfers = tuple(chain.from_iterable(later.pop(number) for number in due))
        if not later:
            del self._later[plan.id]
        return transfers


def by_sender(transfers: Iterable[Transfer]) -> Mapping[int, tuple[Transfer, ...]]:
    """The transfers of each rank that sends any, in their order."""
    found: dict[int, list[Transfer]] = {}
    for transfer in transfers:
        found.setdefault(transfer.src, []).append(transfer)
    return {rank: tuple(own) for rank, own in found.items()}


def _up_to(ahead: int | None, layers: Iterable[tuple[int, tuple[Transfer, ...]]]) -> tuple[Transfer, ...]:
    return tuple(
        chain.from_iterable(transfers for number, transfers in layers if ahead is None or number <= ahead)
    )
