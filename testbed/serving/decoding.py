"""What follows the first token: a decode worker's continuous batch, and the traffic of its steps.

A worker takes one step after another. Each step gives every request in it one token. A request joins at the
step after its first token (iteration-level scheduling: Yu et al., "Orca", OSDI 2022). The worker has the
compute and the memory bandwidth of its GPUs, as for first tokens (`plans.build.decode_step_s`). First tokens
and these steps do not slow each other down.
"""

import itertools
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec

from controller.flow import Stage, Transfer
from controller.units import NS_PER_S
from testbed.job import Job
from testbed.models.gpus import GpuSpeed, step_s
from testbed.models.mixers import copies, mixer_of, mixer_score_flops
from testbed.models.mixers import read_bytes as mixer_read_bytes
from testbed.models.shape import ModelShape
from testbed.models.sizes import (
    all_to_all_bytes_per_token,
    attention_weight_bytes,
    expert_weight_bytes,
    ffn_flops_per_token,
    gate_weight_bytes,
    has_feed_forward,
    is_sparse,
    layer_kinds,
    mlp_flops_per_token,
    mlp_weight_bytes,
    projection_flops_per_token,
    shared_weight_bytes,
)
from testbed.record import RequestRow


class Decoding(msgspec.Struct, frozen=True, kw_only=True):
    """A request on its decode worker. The first of its `output_tokens` is out at `first_token_ns`."""

    request: int
    first_token_ns: int
    prompt_tokens: int
    output_tokens: int


def batch_step_s(model: ModelShape, gpu: GpuSpeed, contexts: Sequence[int], tp: int = 1) -> float:
    """Seconds of one decode step on `tp` ranks; 0 without requests. Request i has KV of `contexts[i]` tokens.

    This is the roofline of the whole step. The weights are read once for all requests, and each request's
    KV is read for it alone. If a token visits k of E experts, n tokens that choose evenly visit
    E (1 - (1 - k/E)^n) of them on average. The ranks share FLOPs and weights, and each reads all KV that it
    keeps. Their all-reduces are left out.
    """
    if not contexts:
        return 0.0
    tokens = len(contexts)
    flops = read_bytes = 0.0
    for kind in layer_kinds(model):
        sparse = is_sparse(model, kind[0])
        mixer = mixer_of(model, kind[0])
        # The scores include one more key than the KV that is read: that of the new token itself.
        scores = sum(mixer_score_flops(mixer, new_tokens=1, prefix_tokens=context) for context in contexts)
        kept = sum(mixer_read_bytes(model, mixer, context) for context in contexts)
        per_token = projection_flops_per_token(model, kind[0])
        weights: float = attention_weight_bytes(model, kind[0])
        if sparse:
            per_token += ffn_flops_per_token(model)
            weights += _sparse_weight_bytes(model, tokens)
        elif has_feed_forward(model, kind[0]):
            per_token += mlp_flops_per_token(model)
            weights += mlp_weight_bytes(model)
        flops += len(kind) * (tokens * per_token + scores)
        read_bytes += len(kind) * (weights + kept * copies(mixer, tp))
    return step_s(gpu, flops=flops / tp, read_bytes=read_bytes / tp)


def _sparse_weight_bytes(model: ModelShape, tokens: int) -> float:
    visited = model.experts * (1 - (1 - model.top_k / model.experts) ** tokens)
    return visited * expert_weight_bytes(model) + shared_weight_bytes(model) + gate_weight_bytes(model)


class DecodeWorker:
    """The steps of one decode worker, as far as the requests in them are known.

    A step has at most `most` requests; the others wait, first come, first served. A request of one token
    ends with its first, and is in no step.
    """

    def __init__(self, *, model: ModelShape, gpu: GpuSpeed, most: int, tp: int = 1) -> None:
        self._model, self._gpu, self._most, self._tp = model, gpu, most, tp
        self._to_come: deque[Decoding] = deque()
        self._running: dict[int, tuple[int, int]] = {}  # tokens before the next one, tokens still to come
        self._now_ns = 0

    def join(self, decoding: Decoding) -> None:
        """A request with more than one token has its first. Reports may overtake each other."""
        place = len(self._to_come)
        while place and _turn(self._to_come[place - 1]) > _turn(decoding):
            place -= 1
        self._to_come.insert(place, decoding)

    def advance(self, until_ns: int | None = None) -> dict[int, int]:
        """Take the steps that end by `until_ns` (None: all), and return the ends of the requests, by id.

        All requests that join before `until_ns` must have been reported.
        """
        ends: dict[int, int] = {}
        while self._to_come or self._running:
            begin_ns, joining = self._next_step()
            end_ns = self._end_ns(begin_ns, joining)
            if until_ns is not None and end_ns > until_ns:
                break
            for _ in range(joining):
                new = self._to_come.popleft()
                self._running[new.request] = (new.prompt_tokens, new.output_tokens - 1)
            self._now_ns = end_ns
            for request, (before, left) in list(self._running.items()):
                if left == 1:
                    ends[request] = end_ns
                    del self._running[request]
                else:
                    self._running[request] = (before + 1, left - 1)
        return ends

    def earliest_end_ns(self, requests: Collection[int]) -> int | None:
        """Return a moment before which none of `requests` ends, and by which the next step may have ended.

        No step can be shorter than one of the request alone. None if the worker has none of them.
        """
        begin_ns, joining = self._next_step() if self._to_come or self._running else (0, 0)
        bounds = [
            begin_ns + left * self._step_ns([before])
            for request, (before, left) in self._running.items()
            if request in requests
        ]
        bounds += [
            max(begin_ns, one.first_token_ns) + (one.output_tokens - 1) * self._step_ns([one.prompt_tokens])
            for one in self._to_come
            if one.request in requests
        ]
        return max(min(bounds), self._end_ns(begin_ns, joining)) if bounds else None

    def _next_step(self) -> tuple[int, int]:
        """Return when the next step begins, and how many requests join it."""
        begin_ns = self._now_ns
        if not self._running:
            begin_ns = max(begin_ns, self._to_come[0].first_token_ns)
        room = self._most - len(self._running)
        joining = 0
        for one in itertools.islice(self._to_come, max(0, room)):
            if one.first_token_ns > begin_ns:
                break
            joining += 1
        return begin_ns, joining

    def _end_ns(self, begin_ns: int, joining: int) -> int:
        contexts = [before for before, _ in self._running.values()]
        contexts += [one.prompt_tokens for one in itertools.islice(self._to_come, joining)]
        return begin_ns + self._step_ns(contexts)

    def _step_ns(self, contexts: Sequence[int]) -> int:
        return round(batch_step_s(self._model, self._gpu, contexts, self._tp) * NS_PER_S)


def _turn(decoding: Decoding) -> tuple[int, int]:
    return decoding.first_token_ns, decoding.request


def last_tokens_ns(
    requests: Iterable[Decoding], *, model: ModelShape, gpu: GpuSpeed, most: int, tp: int = 1
) -> dict[int, int]:
    """When the last token of each request of one worker is out, in model ns, by request id."""
    worker = DecodeWorker(model=model, gpu=gpu, most=most, tp=tp)
    ends: dict[int, int] = {}
    for request in sorted(requests, key=_turn):
        if request.output_tokens <= 1:
            ends[request.request] = request.first_token_ns
        else:
            worker.join(request)
    return ends | worker.advance()


def with_last_tokens(job: Job, rows: Sequence[RequestRow]) -> tuple[RequestRow, ...]:
    """Return `rows`, with `last_token_ns` set if `job` models decoding."""
    most = job.serving.decode_batch
    if most is None:
        return tuple(rows)
    by_worker: dict[int, list[Decoding]] = {}
    for row in rows:
        if row.first_token_ns is not None and row.decode_rank is not None:
            by_worker.setdefault(row.decode_rank, []).append(
                Decoding(
                    request=row.request,
                    first_token_ns=row.first_token_ns,
                    prompt_tokens=row.prompt_tokens,
                    output_tokens=row.output_tokens,
                )
            )
    ends: dict[int, int] = {}
    for requests in by_worker.values():
        tp = job.placement.decode_tp
        ends |= last_tokens_ns(requests, model=job.model, gpu=job.gpu, most=most, tp=tp)
    return tuple(msgspec.structs.replace(row, last_token_ns=ends.get(row.request)) for row in rows)


class StepTraffic(msgspec.Struct, frozen=True, kw_only=True):
    """Background decoding: every `period_ns`, each decode rank sends `size_bytes` to each other one."""

    period_ns: int
    size_bytes: int


def step_traffic(
    *, ranks: int, batch: int, context: int, model: ModelShape, gpu: GpuSpeed, tp: int = 1
) -> StepTraffic | None:
    """Traffic of steps with `batch` requests per worker, each with `context` tokens; None if there is none.

    All `ranks` decode ranks divide the experts among them. Each of the `tp` ranks of a worker has an equal
    share of its tokens. In dispatch and combine, a rank sends each other one 1/`ranks` of its tokens'
    visits. One message per step and pair stands for all of these, although a step has two per sparse layer.
    A worker of a dense model has the whole model and sends nothing to others.
    """
    sparse = sum(is_sparse(model, layer) for layer in range(model.layers))
    if ranks < 2 or batch < 1 or not sparse:
        return None
    return StepTraffic(
        period_ns=round(batch_step_s(model, gpu, [context] * batch, tp) * NS_PER_S),
        size_bytes=2 * sparse * batch * all_to_all_bytes_per_token(model) // (tp * ranks),
    )


BACKGROUND_PREFIX: Final = "decode."
"""What the ids of flows of background decoding begin with. Measures of prefill leave such flows out."""


class BackgroundSteps:
    """Background decoding: the traffic of decode workers with `job.serving.decode_background` requests
    each.

    All ranks step together. A step begins one period after the previous one began, or when all
    messages of that one have arrived, whichever is later. Every request has the workload's mean prompt,
    and half its mean output.
    """

    def __init__(self, job: Job) -> None:
        requests = job.requests
        tokens = sum(request.prompt_tokens + request.output_tokens / 2 for request in requests)
        self._ranks = job.placement.decode
        self._traffic = step_traffic(
            ranks=len(self._ranks),
            tp=job.placement.decode_tp,
            batch=job.serving.decode_background,
            context=round(tokens / max(1, len(requests))),
            model=job.model,
            gpu=job.gpu,
        )
        self._number = 0
        self._earliest_ns = 0
        self._on_their_way: set[str] = set()

    @property
    def idle(self) -> bool:
        """Whether none of its messages is on its way."""
        return not self._on_their_way

    @property
    def due_ns(self) -> int | None:
        """Model time at which the next step begins; None without traffic, or while a step is on its way."""
        return self._earliest_ns if self._traffic is not None and self.idle else None

    def begin(self, now_ns: int) -> tuple[Transfer, ...]:
        """Begin the next step, and return its messages. Call this when `due_ns` has come."""
        assert self._traffic is not None
        name = f"{BACKGROUND_PREFIX}s{self._number}"
        self._number += 1
        self._earliest_ns = now_ns + self._traffic.period_ns
        messages = tuple(
            Transfer(
                id=f"{name}.{src}-{dst}",
                stage=Stage.COLLECTIVE,
                src=src,
                dst=dst,
                size_bytes=self._traffic.size_bytes,
                coflow=name,
            )
            for src in self._ranks
            for dst in self._ranks
            if src != dst
        )
        self._on_their_way.update(message.id for message in messages)
        return messages

    def arrived(self, flow: str) -> None:
        """A flow has arrived. Flows that are not background decoding are ignored."""
        self._on_their_way.discard(flow)
