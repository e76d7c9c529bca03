"""Which rank sits on which server, and which process groups the ranks form.

Ranks are numbered unit by unit, decode workers last. Inside a unit, consecutive ranks form a
tensor-parallel group (one attention replica), and consecutive ranks an expert-parallel group.
"""

import enum
from collections.abc import Sequence

from testbed.job import ModelShape, Placement, RankSpec, Role
from testbed.serving.models import is_moe
from testbed.topology import Topology


class Layout(enum.Enum):
    """`SPREAD`: consecutive ranks on different servers. `PACKED`: server by server."""

    SPREAD = "spread"
    PACKED = "packed"


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
) -> Placement:
    """Place `prefill_units * ranks_per_unit + decode_ranks` ranks on the topology's servers.

    `ranks_per_server` is the most that a server takes; `None`: as few as fit all ranks. The ranks of a
    server take its GPUs in order. `tp` `None`: 1 for a mixture of experts, the whole unit for a dense
    model. `ep` `None`: the whole unit for a mixture of experts, 1 for a dense model.

    Process groups are named `"p0.tp0"`, `"p0.ep0"`; a group of one rank needs no communication and
    is left out. Raises `PlacementError` where the model or the topology does not allow it.
    """
    for key, count in (
        ("units.prefill_units", prefill_units),
        ("units.ranks_per_unit", ranks_per_unit),
        ("units.decode_ranks", decode_ranks),
    ):
        if count < 1:
            raise PlacementError(key, f"must be at least 1, is {count}")
    tp = _tensor_parallel(tp, ranks_per_unit, model)
    ep = _expert_parallel(ep, ranks_per_unit, model)
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
        replicas[unit] = _chunks(members, tp)
        for kind, size in (("tp", tp), ("ep", ep)):
            if size > 1:
                chunks = _chunks(members, size)
                groups |= {f"{unit}.{kind}{i}": chunk for i, chunk in enumerate(chunks)}
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
    return Placement(ranks=tuple(ranks), units=units, replicas=replicas, groups=groups, decode=decode)


def tensor_parallel(placement: Placement) -> int:
    """Ranks of one attention replica (the same in every unit)."""
    return len(next(iter(placement.replicas.values()))[0])


def expert_groups(placement: Placement, unit: str) -> tuple[tuple[str | None, tuple[int, ...]], ...]:
    """The expert-parallel groups of `unit` as (name, members), covering all its ranks.

    Without expert parallelism every rank is by itself, and the name is `None`.
    """
    named = tuple(
        (name, members) for name, members in placement.groups.items() if name.startswith(f"{unit}.ep")
    )
    return named or tuple((None, (rank,)) for rank in placement.units[unit])


def _tensor_parallel(tp: int | None, ranks_per_unit: int, model: ModelShape) -> int:
    if tp is None:
        tp = 1 if is_moe(model) else ranks_per_unit
    if tp < 1:
        raise PlacementError("units.tp", f"must be at least 1, is {tp}")
    if ranks_per_unit % tp:
        raise PlacementError(
            "units.tp", f"a unit's {ranks_per_unit} ranks do not divide into replicas of {tp}"
        )
    for heads, what in ((model.q_heads, "query"), (model.kv_heads, "KV")):
        if heads % tp:
            raise PlacementError(
                "units.tp", f"the {heads} {what} heads of {model.name} do not divide by {tp}"
            )
    return tp


def _expert_parallel(ep: int | None, ranks_per_unit: int, model: ModelShape) -> int:
    if ep is None:
        ep = ranks_per_unit if is_moe(model) else 1
    if ep < 1:
        raise PlacementError("units.ep", f"must be at least 1, is {ep}")
    if not is_moe(model):
        if ep > 1:
            raise PlacementError("units.ep", f"{model.name} has no experts, so ep must be 1")
        return ep
    if ranks_per_unit % ep:
        raise PlacementError("units.ep", f"a unit's {ranks_per_unit} ranks do not divide into groups of {ep}")
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
    """The server and the node of each rank: the ranks of a server take its GPUs in order."""
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
