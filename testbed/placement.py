"""Which rank sits on which server, and which process groups the ranks form.

Ranks are numbered unit by unit, with decode workers last. A unit is a row of pipeline stages, and a stage
is a row of replicas. The ranks of a replica in a stage are a row of sequence parts, and a part is a row of
tensor-parallel ranks. An expert-parallel group is consecutive ranks of a stage, or ranks that have the same
heads (`ExpertGroups`).
"""

import enum
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, pairwise
from typing import TypeVar

import msgspec

from testbed.job import Placement, RankSpec, Role, UnitShape
from testbed.models.mixers import kv_source
from testbed.models.shape import ModelShape
from testbed.topology import Topology
from testbed.unit_shape import PlacementError, Pool, check_decode_workers, checked_shape
from workers.plan import CollectiveKind

T = TypeVar("T")


class Layout(enum.Enum):
    """`SPREAD`: consecutive ranks on different servers. `PACKED`: server by server."""

    SPREAD = "spread"
    PACKED = "packed"


class ExpertGroups(enum.Enum):
    """`CONSECUTIVE`: ranks that follow each other. `STRIDED`: every `tp`-th rank."""

    CONSECUTIVE = "consecutive"
    STRIDED = "strided"


class GroupKind(enum.Enum):
    """What the ranks of a process group divide among them: tensors, a sequence, experts or layers."""

    TENSOR = "tp"
    SEQUENCE = "sp"
    EXPERT = "ep"
    PIPELINE = "pp"


def group_name(unit: str, kind: GroupKind, number: int) -> str:
    """The name of a unit's `number`-th process group of its kind: `p0.tp0`."""
    return f"{unit}.{kind.value}{number}"


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
    decode_tp: int = 1,
    sequence: CollectiveKind = CollectiveKind.RING_ATTENTION,
    more: Sequence[Pool] = (),
    experts: ExpertGroups = ExpertGroups.CONSECUTIVE,
) -> Placement:
    """Place `prefill_units * ranks_per_unit` ranks, those of `more` units and `decode_ranks` on servers.

    `ranks_per_server` is the most that a server takes; with `None`, the fewest that fit all ranks. The
    ranks of a server take its GPUs in order. `testbed.unit_shape.Pool` explains `tp`, `ep`, `sp` and `pp`. A
    decode worker has `decode_tp` ranks.

    A unit has process groups of four kinds. Each kind is numbered in the order of first members:

    - `"p0.tp0"`: the tensor-parallel ranks of a sequence part
    - `"p0.sp0"`: the ranks of a replica's parts that have the same heads
    - `"p0.ep0"`: ranks that divide the experts among them, as `experts` says
    - `"p0.pp0"`: a rank and the one in its place in the next pipeline stage

    A group of one rank needs no communication and is left out. Raises `PlacementError` if the model or the
    topology does not allow the placement.
    """
    first = Pool(units=prefill_units, ranks=ranks_per_unit, tp=tp, ep=ep, sp=sp, pp=pp)
    pools = [(pool, checked_shape(pool, model, sequence)) for pool in (first, *more)]
    for pool, shape in pools:
        _check_sharing(pool, model)
        _check_stride(pool, shape, experts)
    check_decode_workers(decode_ranks, decode_tp, model)
    total = sum(pool.units * pool.ranks for pool, _ in pools) + decode_ranks
    attached = _attached(topology, _servers(total, len(topology.servers), ranks_per_server, layout))

    def spec(rank: int, role: Role, unit: str | None, index: int) -> RankSpec:
        server, node = attached[rank]
        return RankSpec(rank=rank, server=server, node=node, role=role, unit=unit, index=index)

    ranks: list[RankSpec] = []
    units: dict[str, tuple[int, ...]] = {}
    replicas: dict[str, tuple[tuple[int, ...], ...]] = {}
    groups: dict[str, tuple[int, ...]] = {}
    shapes: dict[str, UnitShape] = {}
    for pool, shape in pools:
        for _ in range(pool.units):
            unit = f"p{len(units)}"
            members = tuple(range(len(ranks), len(ranks) + pool.ranks))
            units[unit], shapes[unit] = members, shape
            replicas[unit] = _replicas(_chunks(members, pool.ranks // shape.pp), shape.sp * shape.tp)
            groups |= _groups(unit, members, shape, experts)
            ranks += [spec(rank, Role.PREFILL, unit, i) for i, rank in enumerate(members)]
    decode = tuple(range(len(ranks), total))
    ranks += [spec(rank, Role.DECODE, None, i) for i, rank in enumerate(decode)]
    return Placement(
        ranks=tuple(ranks),
        units=units,
        replicas=replicas,
        groups=groups,
        decode=decode,
        shapes=shapes,
        decode_tp=decode_tp,
    )


def stage_of(layer: int, layers: int, pp: int) -> int:
    """The pipeline stage of a layer. Of L layers, stage s has s L // pp up to (s + 1) L // pp - 1."""
    return ((layer + 1) * pp - 1) // layers


def layers_of(stage: int, layers: int, pp: int) -> range:
    """The layers of a pipeline stage."""
    return range(stage * layers // pp, (stage + 1) * layers // pp)


def stage_ranks(placement: Placement, unit: str, stage: int) -> tuple[int, ...]:
    """The ranks of a pipeline stage, in their order in the unit."""
    size = len(placement.units[unit]) // placement.shapes[unit].pp
    return placement.units[unit][stage * size : (stage + 1) * size]


def stage_shards(placement: Placement, unit: str, replica: int, stage: int) -> tuple[int, ...]:
    """The `sp * tp` ranks that keep a replica's KV in the layers of a pipeline stage, part by part."""
    size = placement.shapes[unit].sp * placement.shapes[unit].tp
    return placement.replicas[unit][replica][stage * size : (stage + 1) * size]


def kinds_of_units(placement: Placement, topology: Topology) -> dict[str, tuple[str, ...]]:
    """The units of each size, shape and rates of NICs, by the first of them."""
    kinds: dict[tuple[UnitShape, tuple[tuple[int, ...], ...]], list[str]] = {}
    for unit, ranks in placement.units.items():
        rates = tuple(topology.nic_bps(placement.node_of(rank)) for rank in ranks)
        kinds.setdefault((placement.shapes[unit], rates), []).append(unit)
    return {units[0]: tuple(units) for units in kinds.values()}


def by_unit(kinds: Mapping[str, Sequence[str]], of_first: Callable[[str], T]) -> dict[str, T]:
    """What `of_first` gives for the first unit of each of `kinds` (`kinds_of_units`), by unit."""
    return {unit: found for first, units in kinds.items() for found in (of_first(first),) for unit in units}


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
    rank, shape = placement.units[unit][index], placement.shapes[unit]
    stage, place = divmod(index, len(placement.units[unit]) // shape.pp)
    replica, shard = divmod(place, shape.sp * shape.tp)
    part, head = divmod(shard, shape.tp)
    [experts] = [name for name, members in expert_groups(placement, unit, stage) if rank in members]
    return Coordinates(unit=unit, stage=stage, replica=replica, part=part, tp=head, experts=experts)


def _groups(
    unit: str, members: tuple[int, ...], shape: UnitShape, experts: ExpertGroups
) -> dict[str, tuple[int, ...]]:
    """The process groups of a unit, by name."""
    stride = shape.tp if experts is ExpertGroups.STRIDED and shape.ep > 1 else 1
    stages = _chunks(members, len(members) // shape.pp)
    groups: dict[str, tuple[int, ...]] = {}
    for kind, sets in (
        (GroupKind.TENSOR, _chunks(members, shape.tp)),
        (GroupKind.SEQUENCE, _strided(members, shape.sp, shape.tp)),
        (GroupKind.EXPERT, _strided(members, shape.ep, stride)),
        (GroupKind.PIPELINE, tuple(pair for here in pairwise(stages) for pair in zip(*here, strict=True))),
    ):
        if sets and len(sets[0]) > 1:
            groups |= {group_name(unit, kind, i): chunk for i, chunk in enumerate(sets)}
    return groups


def _replicas(stages: Sequence[tuple[int, ...]], size: int) -> tuple[tuple[int, ...], ...]:
    """Replica i has the i-th chunk of `size` ranks of every stage."""
    in_stages = zip(*(_chunks(stage, size) for stage in stages), strict=True)
    return tuple(tuple(chain.from_iterable(parts)) for parts in in_stages)


def _strided(members: tuple[int, ...], size: int, stride: int) -> tuple[tuple[int, ...], ...]:
    """Groups of `size` members, `stride` apart: for each chunk of `size * stride`, one from each place."""
    return tuple(chunk[place::stride] for chunk in _chunks(members, size * stride) for place in range(stride))


def _check_stride(pool: Pool, shape: UnitShape, experts: ExpertGroups) -> None:
    """Raise `PlacementError` if strided groups would leave a pipeline stage."""
    per_stage = pool.ranks // shape.pp
    if experts is ExpertGroups.STRIDED and shape.ep > 1 and per_stage % (shape.ep * shape.tp):
        raise PlacementError(
            "units.expert_groups",
            f"{per_stage} ranks do not divide into strided groups: these take {pool.section}.ep x tp = "
            f"{shape.ep} x {shape.tp} ranks together",
        )


def _check_sharing(pool: Pool, model: ModelShape) -> None:
    """Raise `PlacementError` if a layer uses the KV of a layer in another pipeline stage."""
    layer = _apart(model, pool.pp)
    if layer is None:
        return
    source = kv_source(model, layer)
    fit = [pp for pp in range(1, pool.ranks + 1) if pool.ranks % pp == 0 and _apart(model, pp) is None]
    raise PlacementError(
        f"{pool.section}.pp",
        f"layer {layer} of {model.name} uses the KV of layer {source}, which is in another stage; "
        f"pp can be {', '.join(map(str, fit))}",
    )


def _apart(model: ModelShape, pp: int) -> int | None:
    """The first layer that uses the KV of a layer in another of `pp` stages, or None."""
    for layer in range(model.layers):
        stages = {stage_of(one, model.layers, pp) for one in (layer, kv_source(model, layer))}
        if len(stages) > 1:
            return layer
    return None


def _servers(total: int, servers: int, ranks_per_server: int | None, layout: Layout) -> tuple[int, ...]:
    """The server index of each rank."""
    if ranks_per_server is None:
        ranks_per_server = -(-total // servers)
    if ranks_per_server * servers < total:
        raise PlacementError(
            "units.ranks_per_server",
            f"{total} ranks do not fit on {servers} servers of {ranks_per_server}; it takes at least "
            f"{-(-total // servers)} on each",
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
                f"{server_index.count(index)} ranks are to be on {server}, which has {gpus} GPUs: "
                f"{len(server_index)} ranks in all, and {gpus * len(topology.servers)} GPUs",
            )
        attached.append((server, topology.endpoint(server, gpu)))
    return attached


def _chunks(members: tuple[int, ...], size: int) -> tuple[tuple[int, ...], ...]:
    return tuple(members[i : i + size] for i in range(0, len(members), size))
