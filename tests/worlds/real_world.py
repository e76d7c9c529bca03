"""Ranks that really compute a model, in threads of one process, with plans of the serving system.

Collectives go over gloo. What transfers carry is handed over in memory, as lanes would deliver it.
"""

from collections.abc import Callable, Sequence

import msgspec
import serving_world as world
import torch
from worker_groups import CPU, connected, side_by_side

from controller.flow import Transfer
from testbed.coordinator.real_model import real_model
from testbed.job import Job, Placement, Request
from testbed.models.shape import ModelShape
from testbed.serving.system import ServingSystem
from workers.exchange import Exchange
from workers.model.kv import KvStore
from workers.model.rank_model import RankModel
from workers.model.setup import RealModel
from workers.options import ComputeMode
from workers.plan import BatchPlan, CollectiveKind, Compute
from workers.protocol import Evidence, TokenCheck

BLOCK_TOKENS = 8

DENSE = ModelShape(
    name="small-dense",
    layers=4,
    hidden=64,
    q_heads=8,
    kv_heads=4,
    head_dim=16,
    ffn=96,
    experts=0,
    top_k=0,
    bytes_per_element=2,
)
MOE = msgspec.structs.replace(DENSE, name="small-moe", experts=8, top_k=2, ffn=48)


def request(number: int, tokens: int, blocks: Sequence[int]) -> Request:
    """A prompt of `tokens` that begins with `blocks`; its other full blocks have ids of their own."""
    own = range(len(blocks), tokens // BLOCK_TOKENS)
    ids = (*blocks, *(1000 * (number + 1) + i for i in own))
    return Request(
        id=number,
        arrival_ns=number,
        prompt_tokens=tokens,
        output_tokens=1,
        blocks=ids,
        block_tokens=BLOCK_TOKENS,
        slo_ns=10**9,
    )


def real_job(
    model: ModelShape,
    requests: Sequence[Request],
    *,
    sequence: CollectiveKind = CollectiveKind.RING_ATTENTION,
    **units: int,
) -> Job:
    topology, placement = world.placed(model=model, servers=16, sequence=sequence, **units)  # type: ignore[arg-type]
    plain = world.job(topology, placement, model=model, router="round-robin", max_batch_tokens=64)
    return msgspec.structs.replace(
        plain,
        workers=msgspec.structs.replace(plain.workers, compute=ComputeMode.MODEL),
        serving=msgspec.structs.replace(plain.serving, sequence=sequence),
        requests=tuple(requests),
    )


class Cluster:
    """The ranks of a job. `spoil`, if given, may change the bytes of a transfer on their way.

    `spoil_tables` is called with each decode rank's KV before the rank computes the first token of a request.
    With `early`, receivers of S1 and S3 hear of a batch only when its transfers have arrived. `carry`, if
    given, brings a transfer from one rank to another instead.
    """

    def __init__(
        self,
        job: Job,
        spoil: Callable[[str, torch.Tensor], torch.Tensor] = lambda _, content: content,
        spoil_tables: Callable[[KvStore, int], None] = lambda kv, request: None,
        device: torch.device = CPU,
        early: bool = False,
        carry: Callable[[Transfer, RankModel, RankModel], None] | None = None,
    ) -> None:
        made = real_model(job)
        assert made is not None
        self.model: RealModel = made
        self.placement: Placement = job.placement
        self._evidence: list[Evidence] = []
        self.ranks = {
            rank.rank: RankModel(self.model, rank.rank, self._evidence.append, device)
            for rank in job.placement.ranks
        }
        self._system = ServingSystem(job)
        self._requests = job.requests
        self._spoil = spoil
        self._spoil_tables = spoil_tables
        self._early = early
        self._carry = carry
        self._sides: dict[tuple[str, int], Exchange] = {}
        for name, members in job.placement.groups.items():
            for rank, side in zip(members, connected(len(members), name), strict=True):
                self._sides[name, rank] = Exchange(side, members, rank, CPU, staged=True)
        self.plans: list[BatchPlan] = []

    def serve(self) -> dict[int, TokenCheck]:
        """Run all requests, one after the other, and compare their first tokens, by request."""
        for each in self._requests:
            self._run_all(self._system.arrive(each.arrival_ns, each))
        return self.checks()

    def serve_together(self) -> dict[int, TokenCheck]:
        """The same for requests that arrive all at once."""
        self._run_all([plan for each in self._requests for plan in self._system.arrive(0, each)])
        return self.checks()

    def checks(self) -> dict[int, TokenCheck]:
        found = [
            check
            for rank in self.placement.decode
            for check in self.ranks[rank].checks([each for each in self._evidence if each.to == rank])
        ]
        return {check.request: check for check in found}

    def _run_all(self, formed: Sequence[object]) -> None:
        waiting = list(formed)
        while waiting:
            plan = waiting.pop(0)
            assert isinstance(plan, BatchPlan)
            self._run(plan)
            waiting += self._system.batch_done(0, plan.id)

    def _run(self, plan: BatchPlan) -> None:
        self.plans.append(plan)
        decoding = {rank for one in plan.requests for rank in one.decode_ranks}
        if not self._early:
            self._tell({*plan.ranks, *decoding}, plan)
        for transfer in [each for layer in plan.layers for each in layer.wait]:
            self.ranks[transfer.src].sends([transfer], plan.requests)
            self._move(transfer)
        if self._early:
            self._tell(set(plan.ranks), plan)
        side_by_side([self._on(rank, plan) for rank in plan.ranks])
        for transfer in [each for layer in plan.layers for each in layer.post]:
            self._move(transfer)
        if self._early:
            self._tell(decoding, plan)
        for each in plan.requests:
            if each.last:
                self._system.first_token(0, each.request)
                for rank in each.decode_ranks:
                    self._spoil_tables(self.ranks[rank].kv, each.request)
                    self.ranks[rank].first_token(each)

    def _tell(self, ranks: set[int], plan: BatchPlan) -> None:
        for rank in ranks:
            self.ranks[rank].planned(plan)

    def _move(self, transfer: Transfer) -> None:
        # Not a bound method in an attribute: a circle would keep the ranks' connections open after the test.
        carry = self._carry or self._hand_over
        carry(transfer, self.ranks[transfer.src], self.ranks[transfer.dst])

    def _hand_over(self, transfer: Transfer, sender: RankModel, receiver: RankModel) -> None:
        receiver.keep(transfer.id, self._spoil(transfer.id, sender.load(transfer)))

    def _on(self, rank: int, plan: BatchPlan) -> Callable[[], None]:
        """The layer loop of `workers.rank`, without its clock."""

        def run() -> None:
            work = self.ranks[rank].work(plan)
            for layer in plan.layers:
                for step in layer.steps:
                    if isinstance(step, Compute):
                        work.compute(step.label, layer.index)
                    elif (step.group, rank) in self._sides:
                        work.collective(step, layer.index, self._sides[step.group, rank], work.attend)
            self.ranks[rank].ended(work)

        return run
