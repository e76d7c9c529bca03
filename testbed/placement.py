"""Which rank sits on which server, and which process groups the ranks form.

Ranks are numbered unit by unit, with decode workers last. A unit is a row of pipeline stages, and a stage
is a row of replicas. The ranks of a replica in a stage are a row of sequence parts, and a part is a row of
tensor-parallel ranks. Consecutive ranks of a stage form an expert-parallel group.
"""

import contextlib
import enum
from collections.abc import Iterator, Sequence
from itertools import chain, pairwise

import msgspec

from testbed.job import Placement, RankSpec, Role
from testbed.models.mixers import kv_source, mixers
from testbed.models.shape import ModelShape, Recurrent
from testbed.models.sizes import is_moe
from testbed.topology import Topology
from workers.plan import CollectiveKind


class Layout(enum.Enum):
    """`SPREAD`: consecutive ranks on different servers. `PACKED`: server by server."""

    SPREAD = "spread"
    PACKED = "packed"


class GroupKind(enum.Enum):
    """What the ranks of a process group divide among them: tensors, a sequence, experts or layers."""

    TENSOR = "tp"
    SEQUENCE = "sp"
    EXPERT = "ep"
    PIPELINE = "pp"


def group_name(unit: str, kind: GroupKind, number: int) -> str:
    """The name of a unit's `number`-th process group of its kind: `p0.tp0`."""
    return f"{unit}.{kind.value}{number}"


class PlacementError(ValueError):
    """The ranks cannot be placed. `key` is the scenario key to change, `reason` says why."""

    def __init__(self, key: str, reason: str) -> None:
        self.key = key
        self.reason = reason
        super().__init__(f"{key}: {reason}")


def place(
    topology: Topology,
    *,
    prefill_units: int,
    ranks_per_unit: int,
    decode_ranks: int,
    ranks_per_server: int | None,
    tp: int | None,
    ep: int | None,
    layout: Layout,
    model: ModelShape,
    sp: int = 1,
    pp: int = 1,
    sequence: CollectiveKind = CollectiveKind.RING_ATTENTION,
) -> Placement:
    """Place `prefill_units * ranks_per_unit + decode_ranks` ranks on the topology's servers.

    `ranks_per_server` is the most that a server takes; with `None`, the fewest that fit all ranks. The
    ranks of a server take its GPUs in order. A unit has `pp` pipeline stages. A sequence has `sp` parts,
    which attend to each other as `sequence` says (`testbed.job.ServingOptions`). If `tp` is `None`, it is 1
    for a mixture of experts, and otherwise all ranks that share a part of a sequence. If `ep` is `None`, it
    is a whole stage for a mixture of experts, and 1 for a dense model.

    A unit has process groups of four kinds. Each kind is numbered in the order of first members:

    - `"p0.tp0"`: the tensor-parallel ranks of a sequence part
    - `"p0.sp0"`: the ranks of a replica's parts that have the same heads
    - `"p0.ep0"`: ranks that divide the experts among them
    - `"p0.pp0"`: a rank and the one in its place in the next pipeline stage

    A group of one rank needs no communication and is left out. Raises `PlacementError` if the model or the
    topology does not allow the placement.
    """
    for key, count in (
        ("units.prefill_units", prefill_units),
        ("units.ranks_per_unit", ranks_per_unit),
        ("units.decode_ranks", decode_ranks),
    ):
        if count < 1:
            raise PlacementError(key, f"must be at least 1, is {count}")
    per_stage = _stage_ranks(pp, ranks_per_unit, model)
    whose = "a unit's" if pp == 1 else "a stage's"
    with _null_is("units.tp", tp, f"{whose} {per_stage} ranks divided by units.sp, {sp}"):
        tp = _tensor_parallel(tp, sp, per_stage, model, whose)
    with _null_is("units.ep", ep, f"{whose} {per_stage} ranks"):
        ep = _expert_parallel(ep, per_stage, model, whose)
    _check_parts(sp, tp, sequence, model)
    _check_sharing(pp, model)
    total = prefill_units * ranks_per_unit + decode_ranks
    server_index = _servers(total, len(topology.servers), ranks_per_server, layout)
    attached = _attached(topology, server_index)

    ranks: list[RankSpec] = []
    units: dict[str, tuple[int, ...]] = {}
    replicas: dict[str, tuple[tuple[int, ...], ...]] = {}
    groups: dict[str, tuple[int, ...]] = {}
    for number in range(prefill_units):
        unit = f"p{number}"
        members = tuple(range(number * ranks_per_unit, (number + 1) * ranks_per_unit))
        units[unit] = members
        stages = _chunks(members, per_stage)
        replicas[unit] = _replicas(stages, sp * tp)
        for kind, sets in (
            (GroupKind.TENSOR, _chunks(members, tp)),
            (GroupKind.SEQUENCE, _sequence_groups(members, sp, tp)),
            (GroupKind.EXPERT, _chunks(members, ep)),
            (
                GroupKind.PIPELINE,
                tuple(pair for here in pairwise(stages) for pair in zip(*here, strict=True)),
            ),
        ):
            if sets and len(sets[0]) > 1:
                groups |= {group_name(unit, kind, i): chunk for i, chunk in enumerate(sets)}
        ranks += [
            RankSpec(
                rank=rank,
                server=attached[rank][0],
                node=attached[rank][1],
                role=Role.PREFILL,
                unit=unit,
                index=i,
            )
            for i, rank in enumerate(members)
        ]
    decode = tuple(range(prefill_units * ranks_per_unit, total))
    ranks += [
        RankSpec(rank=rank, server=attached[rank][0], node=attached[rank][1], role=Role.DECODE, index=i)
        for i, rank in enumerate(decode)
    ]
    return Placement(
        ranks=tuple(ranks),
        units=units,
        replicas=replicas,
        groups=groups,
        decode=decode,
        tp=tp,
        sp=sp,
        pp=pp,
    )


def stage_of(layer: int, layers: int, pp: int) -> int:
    """The pipeline stage of a layer. Of L layers, stage s has s L // pp up to (s + 1) L // pp - 1."""
    return ((layer + 1) * pp - 1) // layers


def layers_of(stage: int, layers: int, pp: int) -> range:
    """The layers of a pipeline stage."""
    return range(stage * layers // pp, (stage + 1) * layers // pp)


def stage_ranks(placement: Placement, unit: str, stage: int) -> tuple[int, ...]:
    """The ranks of a pipeline stage, in their order in the unit."""
    size = len(placement.units[unit]) // placement.pp
    return placement.units[unit][stage * size : (stage + 1) * size]


def stage_shards(placement: Placement, unit: str, replica: int, stage: int) -> tuple[int, ...]:
    """The `sp * tp` ranks that keep a replica's KV in the layers of a pipeline stage, part by part."""
    size = placement.sp * placement.tp
    return placement.replicas[unit][replica][stage * size : (stage + 1) * size]


def expert_groups(
    placement: Placement, unit: str, stage: int = 0
) -> tuple[tuple[str | None, tuple[int, ...]], ...]:
    """The expert-parallel groups of a pipeline stage of `unit`, as (name, members); they cover its ranks.

    Without expert parallelism, every rank is by itself, and its name is `None`.
    """
    ranks = stage_ranks(placement, unit, stage)
    groups = placement.groups
    names = [group_name(unit, GroupKind.EXPERT, number) for number in range(len(placement.units[unit]))]
    named = tuple((name, groups[name]) for name in names if name in groups and groups[name][0] in ranks)
    return named or tuple((None, (rank,)) for rank in ranks)


class Coordinates(msgspec.Struct, frozen=True, kw_only=True):
    """Where a prefill rank is in its unit. `experts` names its expert-parallel group, None without one."""

    unit: str
    stage: int
    replica: int
    part: int
    tp: int
    experts: str | None


def coordinates(placement: Placement, unit: str, index: int) -> Coordinates:
    """Where in its unit a rank is. `index` is its place in `placement.units[unit]`."""
    rank = placement.units[unit][index]
    stage, place = divmod(index, len(placement.units[unit]) // placement.pp)
    replica, shard = divmod(place, placement.sp * placement.tp)
    part, head = divmod(shard, placement.tp)
    [experts] = [name for name, members in expert_groups(placement, unit, stage) if rank in members]
    return Coordinates(unit=unit, stage=stage, replica=replica, part=part, tp=head, experts=experts)


def _replicas(stages: Sequence[tuple[int, ...]], size: int) -> tuple[tuple[int, ...], ...]:
    """Replica i has the i-th chunk of `size` ranks of every stage."""
    in_stages = zip(*(_chunks(stage, size) for stage in stages), strict=True)
    return tuple(tuple(chain.from_iterable(parts)) for parts in in_stages)


def _sequence_groups(members: tuple[int, ...], sp: int, tp: int) -> tuple[tuple[int, ...], ...]:
    """For every replica in every stage, the groups of ranks that have the same heads."""
    return tuple(shared[head::tp] for shared in _chunks(members, sp * tp) for head in range(tp))


def _stage_ranks(pp: int, ranks_per_unit: int, model: ModelShape) -> int:
    if pp < 1:
        raise PlacementError("units.pp", f"must be at least 1, is {pp}")
    if pp > model.layers:
        raise PlacementError("units.pp", f"{model.name} has {model.layers} layers, too few for {pp} stages")
    if ranks_per_unit % pp:
        raise PlacementError("units.pp", f"a unit's {ranks_per_unit} ranks do not divide into {pp} stages")
    return ranks_per_unit // pp


@contextlib.contextmanager
def _null_is(key: str, given: int | None, meaning: str) -> Iterator[None]:
    """Say what null means in a refusal of `key` if it is not given: its value is then not the user's."""
    try:
        yield
    except PlacementError as error:
        if given is not None or error.key != key:
            raise
        raise PlacementError(key, f"{error.reason}; it is null, which means {meaning}") from None


def _tensor_parallel(tp: int | None, sp: int, per_stage: int, model: ModelShape, whose: str) -> int:
    if sp < 1:
        raise PlacementError("units.sp", f"must be at least 1, is {sp}")
    if per_stage % sp:
        raise PlacementError("units.sp", f"{whose} {per_stage} ranks do not divide into {sp} parts")
    if tp is None:
        tp = 1 if is_moe(model) else per_stage // sp
    if tp < 1:
        raise PlacementError("units.tp", f"must be at least 1, is {tp}")
    reason = _undivided(model, tp)
    if per_stage % (sp * tp):
        of = f"{tp}" if sp == 1 else f"{sp} parts x {tp}"
        reason = f"{whose} {per_stage} ranks do not divide into replicas of {of}"
    if reason:
        ranks = per_stage // sp
        fit = [n for n in range(1, ranks + 1) if ranks % n == 0 and not _undivided(model, n)]
        raise PlacementError("units.tp", f"{reason}; tp can be {', '.join(map(str, fit))}")
    return tp


def _undivided(model: ModelShape, tp: int) -> str:
    """Why the heads of the layers do not divide by `tp`; empty if they do."""
    for mixer in mixers(model):
        if isinstance(mixer, Recurrent):
            if mixer.heads % tp:
                return f"the {mixer.heads} heads of {mixer.kind} of {model.name} do not divide by {tp}"
            continue
        if mixer.q_heads % tp:
            return f"the {mixer.q_heads} query heads of {model.name} do not divide by {tp}"
        # More ranks than KV heads have copies of them; the latent of MLA has no heads to divide.
        if mixer.latent is None and mixer.kv_heads % tp and tp % mixer.kv_heads:
            return f"the {mixer.kv_heads} KV heads of {model.name} do not divide by {tp}, nor it by them"
    return ""


def _check_parts(sp: int, tp: int, sequence: CollectiveKind, model: ModelShape) -> None:
    """Raise `PlacementError` if the layers cannot work on `sp` parts of a sequence."""
    for mixer in mixers(model) if sp > 1 else ():
        if isinstance(mixer, Recurrent):
            raise PlacementError(
                "units.sp",
                f"parts of a sequence are not modelled for the layers with {mixer.kind} of {model.name}",
            )
        if sequence is CollectiveKind.ALL_TO_ALL and mixer.q_heads % (sp * tp):
            raise PlacementError(
                "units.sp",
                f"the {mixer.q_heads} query heads of {model.name} do not divide by {sp} parts x {tp}",
            )


def _check_sharing(pp: int, model: ModelShape) -> None:
    """Raise `PlacementError` if a layer uses the KV of a layer in another pipeline stage."""
    for layer in range(model.layers):
        source = kv_source(model, layer)
        if stage_of(source, model.layers, pp) != stage_of(layer, model.layers, pp):
            raise PlacementError(
                "units.pp",
                f"layer {layer} of {model.name} uses the KV of layer {source}, which is in another stage",
            )


def _expert_parallel(ep: int | None, per_stage: int, model: ModelShape, whose: str) -> int:
    if ep is None:
        ep = per_stage if is_moe(model) else 1
    if ep < 1:
        raise PlacementError("units.ep", f"must be at least 1, is {ep}")
    if not is_moe(model):
        if ep > 1:
            raise PlacementError("units.ep", f"{model.name} has no experts, so ep must be 1")
        return ep
    if per_stage % ep:
        raise PlacementError("units.ep", f"{whose} {per_stage} ranks do not divide into groups of {ep}")
    if model.experts % ep:
        raise PlacementError("units.ep", f"the {model.experts} experts of {model.name} do not divide by {ep}")
    return ep


def _servers(total: int, servers: int, ranks_per_server: int | None, layout: Layout) -> tuple[int, ...]:
    """The server index of each rank."""
    if ranks_per_server is None:
        ranks_per_server = -(-total // servers)
    if ranks_per_server * servers < total:
        raise PlacementError(
            "units.ranks_per_server",
            f"{total} ranks do not fit on {servers} servers of {ranks_per_server}",
        )
    if layout is Layout.SPREAD:
        return tuple(rank % servers for rank in range(total))
    return tuple(rank // ranks_per_server for rank in range(total))


def _attached(topology: Topology, server_index: Sequence[int]) -> list[tuple[str, str]]:
    """The server and the node of each rank. The ranks of a server take its GPUs in order."""
    taken = [0] * len(topology.servers)
    attached: list[tuple[str, str]] = []
    for index in server_index:
        server, gpu = topology.servers[index], taken[index]
        taken[index] += 1
        gpus = topology.shape.gpus
        if gpus is not None and gpu >= gpus:
            raise PlacementError(
                "topology.gpus_per_server",
                f"{server_index.count(index)} ranks are to be on {server}, which has {gpus} GPUs",
            )
        attached.append((server, topology.endpoint(server, gpu)))
    return attached


def _chunks(members: tuple[int, ...], size: int) -> tuple[tuple[int, ...], ...]:
    return tuple(members[i : i + size] for i in range(0, len(members), size))
