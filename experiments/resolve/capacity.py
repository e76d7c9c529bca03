"""The capacity that `workload.load` is a share of: what an overloaded run under `fair` gets done.

Full, even batches on a network without contention (`testbed.serving.capacity`) can be several times more
than a run ever reaches: replicas wait for the one with the most tokens, and transfers share links. So the
cluster is simulated with more requests than it can do, and the rate at which it prefills them is measured. To
keep that cheap, only some batches per unit are simulated, and only a few of the layers where all layers are
alike: compute, S1, S2 and S3 of a batch are proportional to the number of layers.

The capacity is that with the usual rules: a router, a batching rule or an option of the simulator does not
change it. So a load means the same arrivals for all of them.
"""

import contextlib
import hashlib
import math
import random
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from itertools import pairwise
from typing import Final

import msgspec

from controller.units import NS_PER_S
from experiments.resolve.work_demand import demand
from experiments.results.limits import Limit, Limits, Resources, limits
from experiments.results.readable_numbers import share
from testbed.fabric import RunProgress
from testbed.job import Collect, Job, Request, ReuseRule, ServingOptions, SimulationOptions
from testbed.models.shape import ModelShape
from testbed.record import RequestRow, RunRecord
from testbed.serving.capacity import decode_rps
from testbed.serving.slo import ideal_reuse_tokens
from testbed.simulation.fabric_sim import SimulatedFabric

_LAYERS: Final = 4
_BATCHES: Final = 8
"""Full batches of each unit that are simulated at first, if that takes at most `_PASSES` of the requests."""

_MOST_BATCHES: Final = 32
"""Where batches are too uneven for few of them, twice as many are simulated, up to these."""

_FEWEST_BATCHES: Final = 4
_PASSES: Final = 2
_CLOSE: Final = 0.075
"""The standard error of a rate, as a share of it, that is close enough: 95 % of estimates are within 15 %."""

_BEHIND: Final = 0.1
"""S3 is behind prefill if its end is later than that of prefill by more than this share of the time."""

_REQUESTS: Final = 96
"""The requests that are simulated at least, if the workload has them: their sizes differ."""

_OVERLOAD: Final = 2.0
"""Arrivals, in multiples of what full, even batches could do."""

_SEED: Final = 0
_ROUTER: Final = "least-queued-tokens"
_DECODE_CHOICE: Final = "round-robin"
_NO_SLO_NS: Final = 10**15
_KNOWN: Final = 64

EstimateListener = Callable[[RunProgress], None]
"""Called with how far the simulation is: of its requests, `done` have their first token."""


class Capacity(msgspec.Struct, frozen=True, kw_only=True):
    """Requests/s that the cluster can sustain, and in words what sets it."""

    rps: float
    words: str


def _unheard(state: RunProgress) -> None:
    """Nobody listens."""


_tell: ContextVar[EstimateListener] = ContextVar("_tell", default=_unheard)


@contextlib.contextmanager
def estimating_told(listener: EstimateListener) -> Iterator[None]:
    """Inside, tell `listener` how far the simulation is whenever a capacity is estimated, to its end."""
    token = _tell.set(listener)
    try:
        yield
    finally:
        _tell.reset(token)


_known: OrderedDict[bytes, Capacity] = OrderedDict()
"""By the overloaded job. The points of a sweep that differ in their load or their rules share one."""


def estimated_capacity(job: Job, requests: Sequence[Request]) -> Capacity:
    """Estimate the capacity of the cluster of `job` for `requests`, of which only the order matters.

    Raises `ValueError` without requests.
    """
    overloaded, layers_share = _overloaded(job, requests)
    key = hashlib.sha256(msgspec.msgpack.encode(overloaded)).digest()
    if key not in _known:
        _known[key] = _simulated(job, requests, overloaded, layers_share)
        if len(_known) > _KNOWN:
            _known.popitem(last=False)
    return _known[key]


def _simulated(job: Job, requests: Sequence[Request], overloaded: Job, layers_share: float) -> Capacity:
    batches = _BATCHES
    record = _run(overloaded)
    while batches < _MOST_BATCHES and not _is_close(record.requests):
        batches *= 2
        overloaded, layers_share = _overloaded(job, requests, batches)
        record = _run(overloaded)
    # The sample can have shorter prompts, or less reuse, than all requests.
    sample = demand(job, overloaded.requests).capacity_rps
    ideal = demand(job, requests).capacity_rps
    reached_rps = prefill_rate_rps(record.requests)
    delivered_rps = delivered_rate_rps(record.requests)
    if delivered_rps is not None:
        reached_rps = min(reached_rps, delivered_rps)
    # A short run may measure lighter prompts than the mean: no run does more than full, even batches could.
    prefill_rps = min(ideal, reached_rps * layers_share * ideal / sample)
    decoding_rps = decode_rps(job, requests)
    if decoding_rps is not None and decoding_rps < prefill_rps:
        return Capacity(
            rps=decoding_rps,
            words=f"the decode workers set it, with {job.serving.decode_batch} requests in a step; prefill"
            f" alone could do {prefill_rps:.3g}",
        )
    found = limits(record, Resources.of(overloaded))
    what = "" if found is None else f"{_limit_words(found)}; "
    return Capacity(
        rps=prefill_rps,
        words=f"{what}an overloaded run under fair reaches {share(prefill_rps / ideal)} of what full, even"
        f" batches could do",
    )


def _run(overloaded: Job) -> RunRecord:
    tell, begun_s = _tell.get(), time.monotonic()
    record = SimulatedFabric().run(overloaded, tell)
    count = len(overloaded.requests)
    tell(RunProgress(phase="done", done=count, total=count, wall_s=time.monotonic() - begun_s))
    return record


def _limit_words(found: Limits) -> str:
    busy = f"prefill GPUs are {share(found.occupied.mean)} busy ({share(found.computing.mean)} computing)"
    if found.port is not None and found.port_busy is not None:
        busy += f", the busiest port {found.port} {share(found.port_busy.mean)}"
    return f"the network sets it: {busy}" if found.limit is Limit.NETWORK else busy


def _is_close(rows: Sequence[RequestRow]) -> bool:
    return prefill_rate_error(rows) <= _CLOSE and delivered_rate_rps(rows) is None


def prefill_rate_rps(rows: Sequence[RequestRow]) -> float:
    """Return the requests/s that units prefill while they have a queue: the sum of the rates of the units.

    A unit's rate is that from the end of one of its batches to the end of a later one. The first eighth of
    its batches, at least one, is left out, because they may not be full, and so is the last eighth.
    """
    total = 0.0
    for ended in _ended_by_unit(rows):
        steady = _steady(ended)
        if steady:
            total += sum(done for done, _ in steady) * NS_PER_S / sum(took_ns for _, took_ns in steady)
        else:
            total += sum(ended.values()) * NS_PER_S / max(ended)
    return total


def prefill_rate_error(rows: Sequence[RequestRow]) -> float:
    """Return the standard error of `prefill_rate_rps`, as a share of it. A rate is a ratio of two sums.

    The error is infinite if a unit has fewer than two batches that count.
    """
    total = variance = 0.0
    for ended in _ended_by_unit(rows):
        steady = _steady(ended)
        if len(steady) < 2:
            return math.inf
        n, all_ns = len(steady), sum(took_ns for _, took_ns in steady)
        rate = sum(done for done, _ in steady) / all_ns
        squares = sum((done - rate * took_ns) ** 2 for done, took_ns in steady)
        variance += squares * n / (n - 1) / all_ns**2
        total += rate
    return math.sqrt(variance) / total if total else math.inf


def _ended_by_unit(rows: Sequence[RequestRow]) -> list[Counter[int]]:
    """Return for each unit how many requests it had prefilled at which moment: a batch ends at one."""
    units: dict[str | None, Counter[int]] = {}
    for row in rows:
        if row.prefill_end_ns is not None:
            units.setdefault(row.unit, Counter())[row.prefill_end_ns] += 1
    return list(units.values())


def _steady(ended: Counter[int]) -> list[tuple[int, int]]:
    """Return, for each batch that counts, its requests and the time since the end of the batch before it."""
    ends = sorted(ended)
    left_out = max(1, len(ends) // 8)
    return [(ended[end], end - before) for before, end in pairwise(ends[left_out - 1 : len(ends) - left_out])]


def delivered_rate_rps(rows: Sequence[RequestRow]) -> float | None:
    """Return the requests/s whose KV reached the decode workers, if S3 was behind prefill; otherwise None.

    Prefill does not wait for S3. Where S3 is what limits, prefill runs ahead, and its rate says nothing of
    what the cluster can sustain. The links of S3 are then busy until the last request has its KV.
    """
    prefilled = [row.prefill_end_ns for row in rows if row.prefill_end_ns is not None]
    delivered = [row.p2d_end_ns for row in rows if row.p2d_end_ns is not None]
    if not delivered or max(delivered) <= (1 + _BEHIND) * max(prefilled):
        return None
    return len(delivered) * NS_PER_S / max(delivered)


def _overloaded(job: Job, requests: Sequence[Request], batches: int = _BATCHES) -> tuple[Job, float]:
    """Return `job` with more requests like these than it can do, on few layers; and the share of layers."""
    model, layers_share = _few_layers(job.model, job.placement.most_stages)
    sample, waiting = _sample(job, requests, batches)
    # Fewer layers take less time, so requests arrive more often.
    gap_ns = NS_PER_S * layers_share / (_OVERLOAD * demand(job, sample).capacity_rps)
    arriving = tuple(
        msgspec.structs.replace(request, arrival_ns=round(max(0, i - waiting) * gap_ns))
        for i, request in enumerate(sample)
    )
    return (
        msgspec.structs.replace(
            job,
            policy="fair",
            control=None,
            model=model,
            requests=arriving,
            simulation=SimulationOptions(),
            serving=_usual_rules(job.serving),
            collect=Collect.SUMMARY,
        ),
        layers_share,
    )


def _usual_rules(serving: ServingOptions) -> ServingOptions:
    """Return these options with the usual rules, and without decode steps, which prefill does not notice."""
    return msgspec.structs.replace(
        serving,
        router=_ROUTER,
        decode_choice=_DECODE_CHOICE,
        batching=None,
        preempt_layers=None,
        reuse=ReuseRule.FETCH,
        fetch_early=False,
        fetch_ahead=None,
        decode_batch=None,
    )


def _few_layers(model: ModelShape, stages: int) -> tuple[ModelShape, float]:
    """Return `model` with few of its layers, and their share; itself if layers differ, or in a pipeline.

    What one pipeline stage sends to the next one does not depend on its layers.
    """
    differ = model.dense_layers or model.bare_layers or model.other_layers
    if differ or stages > 1 or model.layers <= _LAYERS:
        return model, 1.0
    return msgspec.structs.replace(model, layers=_LAYERS), _LAYERS / model.layers


def _sample(job: Job, requests: Sequence[Request], batches: int) -> tuple[list[Request], int]:
    """Return requests like these, enough for `batches` of each unit, and how many of them fill one each.

    If there are too few, they come again, as other prompts of the same sizes that share what these share. If
    there are more than enough, they are drawn from all, because those at the beginning of a trace may be more
    alike. Only where prompts reuse KV, they are the first ones: what they reuse is that of their neighbours.
    No request waits for an answer: sessions would keep the cluster from being overloaded.
    """
    reuse = ideal_reuse_tokens(requests)
    new_tokens = sum(request.prompt_tokens for request in requests) - sum(reuse.values())
    batch_tokens = job.serving.chunk_tokens or job.serving.max_batch_tokens
    # A prompt that is larger than a batch is one by itself.
    batch = max(1.0, batch_tokens * len(requests) / max(1, new_tokens))
    a_round = batch * len(job.placement.units)
    more = batches // _BATCHES
    most = more * max(_PASSES * len(requests), math.ceil(_FEWEST_BATCHES * a_round))
    count = min(max(math.ceil(batches * a_round), more * min(len(requests), _REQUESTS)), most)
    other_blocks = 1 + max((max(request.blocks) for request in requests if request.blocks), default=0)
    drawn: Sequence[int] = range(len(requests))
    if count < len(requests) and not any(reuse.values()):
        drawn = sorted(random.Random(_SEED).sample(drawn, count))
    sample = []
    for i in range(count):
        again, place = divmod(i, len(drawn))
        request = requests[drawn[place]]
        sample.append(
            msgspec.structs.replace(
                request,
                id=i,
                blocks=tuple(block + again * other_blocks for block in request.blocks),
                after=None,
                pause_ns=0,
                warmup=False,
                unloaded_ns=0,
                slo_ns=_NO_SLO_NS,
            )
        )
    return sample, math.ceil(a_round)
