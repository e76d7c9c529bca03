"""The compute and collective steps of the layers of a batch, for all ranks of a unit.

With tensor parallelism in a mixture of experts, one all-reduce after attention stands for a reduce-scatter
before the dispatch and an all-gather after the combine. The bytes are the same, and each of the `tp` ranks
dispatches its share of the tokens.

A step takes as long as its computing or its reading, whichever takes longer (`gpus.step_s`). A rank reads
its weights of the layer once per batch, and the KV of reused prefixes.
"""

from collections.abc import Callable, Sequence
from functools import cache
from itertools import groupby, zip_longest

import msgspec

from testbed.job import Job, Placement
from testbed.models.gpus import GpuSpeed
from testbed.models.mixers import mixer_numbers
from testbed.models.shape import ModelShape
from testbed.models.sizes import (
    activation_bytes_per_token,
    has_feed_forward,
    is_sparse,
    layer_kinds,
    mlp_flops_per_token,
    mlp_weight_bytes,
)
from testbed.placement import GroupKind, group_name, layers_of, stage_of
from testbed.serving.plans.attention_steps import attention_steps
from testbed.serving.plans.expert_steps import expert_steps
from testbed.serving.plans.stage_work import (
    NOTHING,
    PLAIN,
    Need,
    ReplicaWork,
    StageWork,
    StepOptions,
    work_of,
)
from workers.plan import Collective, CollectiveKind, Compute, Step

__all__ = [
    "PLAIN",
    "AlikeLayers",
    "ReplicaWork",
    "StepOptions",
    "block_compute_s",
    "in_layer",
    "layer_steps",
    "side_by_side",
    "slowest_compute_s",
    "slowest_stage",
    "step_options",
    "steps_of",
    "unit_steps",
    "work_of",
]


def step_options(job: Job) -> StepOptions:
    """How the ranks of the units of `job` work together."""
    serving = job.serving
    return StepOptions(
        all_reduce=serving.all_reduce,
        sequence=serving.sequence,
        expert_skew=serving.expert_skew,
        seed=job.seed,
    )


def steps_of(job: Job, unit: str, work: Sequence[ReplicaWork]) -> "tuple[AlikeLayers, ...]":
    """The steps of all layers of a batch with this work, on a unit of `job`."""
    return unit_steps(
        work,
        unit=unit,
        placement=job.placement,
        model=job.model,
        gpu=job.gpu,
        options=step_options(job),
    )


class AlikeLayers(msgspec.Struct, frozen=True, kw_only=True):
    """Layers of one pipeline stage that have the same steps, and these steps.

    `mixer` is which of the model's `mixers` they have, so they also have the same S1 and S3.
    """

    stage: int
    mixer: int
    layers: tuple[int, ...]
    steps: tuple[Step, ...]

    @property
    def kind(self) -> tuple[int, int]:
        """What the S1 and S3 of a layer depend on: its stage and its mixer."""
        return self.stage, self.mixer


def unit_steps(
    work: Sequence[ReplicaWork],
    *,
    unit: str,
    placement: Placement,
    model: ModelShape,
    gpu: GpuSpeed,
    options: StepOptions,
) -> tuple[AlikeLayers, ...]:
    """The steps of all layers, as `layer_steps` gives them. Every layer is in exactly one group."""
    alike: list[AlikeLayers] = []
    pp = placement.shapes[unit].pp
    for layers in _alike(model, pp, skewed=options.expert_skew > 0):
        steps = layer_steps(
            work,
            layer=layers[0],
            unit=unit,
            placement=placement,
            model=model,
            gpu=gpu,
            options=options,
        )
        alike.append(
            AlikeLayers(
                stage=stage_of(layers[0], model.layers, pp),
                mixer=mixer_numbers(model)[layers[0]],
                layers=layers,
                steps=steps,
            )
        )
    return tuple(alike)


@cache
def _alike(model: ModelShape, pp: int, *, skewed: bool) -> tuple[tuple[int, ...], ...]:
    """Layers grouped by kind and pipeline stage.

    Some are by themselves: the first layer of a later stage, which waits for the stage before, and with
    skew every sparse layer, because the popularity of its experts has an order of its own.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for kind, layers in enumerate(layer_kinds(model)):
        for layer in layers:
            stage = stage_of(layer, model.layers, pp)
            first = stage > 0 and layer == layers_of(stage, model.layers, pp)[0]
            alone = first or (skewed and is_sparse(model, layer))
            groups.setdefault((kind, stage, layer if alone else -1), []).append(layer)
    return tuple(tuple(layers) for layers in groups.values())


def slowest_stage(alike: Sequence[AlikeLayers], takes: Callable[[AlikeLayers], float]) -> float:
    """How long the slowest pipeline stage takes, if `takes` is how long a group of its layers takes."""
    stages: dict[int, float] = {}
    for group in alike:
        stages[group.stage] = stages.get(group.stage, 0.0) + takes(group)
    return max(stages.values())


def layer_steps(
    work: Sequence[ReplicaWork],
    *,
    layer: int,
    unit: str,
    placement: Placement,
    model: ModelShape,
    gpu: GpuSpeed,
    options: StepOptions,
) -> tuple[Step, ...]:
    """The steps of one layer, in order. `work[i]` belongs to replica i of `unit`.

    Ranks of other pipeline stages have nothing to do and are in none of its collectives, with one
    exception: the first layer of a stage begins with the hidden states that the stage before hands over.
    Collective ids are `"<label>.<group>"`; `in_layer` makes them unique. Collectives without any bytes
    are left out.
    """
    pp = placement.shapes[unit].pp
    number = stage_of(layer, model.layers, pp)
    stage = StageWork(unit=unit, stage=number, replicas=work, placement=placement, model=model, gpu=gpu)
    steps: list[Step] = []
    if number > 0 and layer == layers_of(number, model.layers, pp)[0]:
        steps += _handed_over(stage)
    steps += attention_steps(stage, layer, options.sequence)
    steps += _all_reduces("attention-reduce", options.all_reduce, stage)
    if is_sparse(model, layer):
        steps += expert_steps(stage, layer, options)
    elif has_feed_forward(model, layer):
        steps.append(_mlp(stage))
        steps += _all_reduces("mlp-reduce", options.all_reduce, stage)
    return tuple(steps)


def in_layer(steps: Sequence[Step], batch: str, layer: int, downstream_ns: Sequence[int]) -> tuple[Step, ...]:
    """Return the same steps for one layer of a batch.

    Collective ids become `"<batch>.l<layer>.<label>.<group>"`, and `downstream_ns[i]` comes after step i.
    """
    return tuple(
        msgspec.structs.replace(step, id=f"{batch}.l{layer}.{step.id}", downstream_ns=after_ns)
        if isinstance(step, Collective)
        else step
        for step, after_ns in zip(steps, downstream_ns, strict=True)
    )


def slowest_compute_s(steps: Sequence[Step]) -> float:
    """Seconds of compute in one layer.

    The ranks wait for each other, so each step takes as long as its slowest rank. In ring attention, each
    round does.
    """
    own = sum(max(step.seconds) for step in steps if isinstance(step, Compute))
    return own + sum(sum(block_compute_s(together)) for together in side_by_side(steps))


def side_by_side(steps: Sequence[Step]) -> list[list[Collective]]:
    """The collectives of `steps`, in lists of those that run at once.

    These are consecutive ones with the same label; they are in different groups.
    """
    collectives = [step for step in steps if isinstance(step, Collective)]
    return [list(together) for _, together in groupby(collectives, key=lambda step: step.label)]


def block_compute_s(together: Sequence[Collective]) -> list[float]:
    """Seconds of compute inside collectives that run at once: for each round, at its slowest rank."""
    ranks = [seconds for step in together for seconds in step.round_seconds]
    return [max(seconds) for seconds in zip_longest(*ranks, fillvalue=0.0)]


def _handed_over(stage: StageWork) -> list[Step]:
    """The hidden states of each rank's part, from the rank in its place in the stage before.

    Every tensor-parallel rank has all of them, and sends all of them.
    """
    size = len(stage.ranks)
    first = (stage.stage - 1) * size
    collectives: list[Step] = []
    for place, tokens in enumerate(stage.new_tokens):
        if tokens:
            group = group_name(stage.unit, GroupKind.PIPELINE, first + place)
            handed = tokens * activation_bytes_per_token(stage.model)
            collectives.append(
                Collective(
                    id=f"stage.{group}",
                    group=group,
                    kind=CollectiveKind.ALL_TO_ALL,
                    sizes=((0, handed), (0, 0)),
                    label="stage",
                )
            )
    return collectives


def _all_reduces(label: str, kind: CollectiveKind, stage: StageWork) -> list[Step]:
    """One all-reduce per tensor-parallel group with tokens; none without tensor parallelism."""
    tp = stage.tp
    if tp == 1:
        return []
    return [
        Collective(
            id=f"{label}.{stage.tp_group(number)}",
            group=stage.tp_group(number),
            kind=kind,
            sizes=((tokens * activation_bytes_per_token(stage.model),),),
            label=label,
        )
        for number, tokens in enumerate(stage.new_tokens[::tp])
        if tokens
    ]


def _mlp(stage: StageWork) -> Compute:
    model, tp = stage.model, stage.tp
    needs = [
        Need(flops=tokens * mlp_flops_per_token(model) / tp, read_bytes=mlp_weight_bytes(model) / tp)
        if tokens
        else NOTHING
        for tokens in stage.new_tokens
    ]
    return stage.compute("mlp", needs)
