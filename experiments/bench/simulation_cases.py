"""The fixed cases of `mfs bench sim`: some to judge it by, others to show how times grow with size.

Rates of arrival are fixed. A load is a share of an estimated capacity, so a case would be other work
whenever the estimate changes, and the overloaded run that makes the estimate would count as part of it.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from experiments.errors import UserError


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A run of fixed size. `settings` are its changes to the scenario `quickstart`."""

    name: str
    about: str
    settings: tuple[str, ...]


_GPUS_64 = (
    "topology.servers=64",
    "topology.nic_gbps=100",
    "units.ranks_per_server=1",
    "units.prefill_units=7",
    "units.ranks_per_unit=8",
    "units.decode_ranks=8",
    "workload.kind=conversation",
    "units.tp=8",
    "units.ep=8",
)
"""56 prefill GPUs in 7 units of 8, tensor- and expert-parallel, and 8 decode GPUs. Each GPU has a NIC, and
all share one switch."""

_CLUSTER = (
    "topology.kind=leaf-spine",
    "topology.nic_gbps=400",
    "topology.gpus_per_server=8",
    "topology.nics_per_server=8",
    "topology.nvlink_gbps=3600",
    "model=mixtral-8x22b",
    "gpu=h100",
    "units.ranks_per_server=8",
    "units.ranks_per_unit=8",
    "units.tp=4",
    "units.ep=8",
    "workload.kind=conversation",
)


def _arrivals(requests: int, rate: float) -> tuple[str, ...]:
    return (f"workload.requests={requests}", "workload.load=null", f"workload.rate={rate}")


def _cluster(servers: int, *, requests: int, rate: float) -> tuple[str, ...]:
    """`servers` of 8 GPUs and 8 NICs. A quarter of the GPUs decode; up to 16 servers share a leaf."""
    leaves = max(2, servers // 16)
    return (
        *_CLUSTER,
        *_arrivals(requests, rate),
        f"topology.servers={servers}",
        f"topology.leaves={leaves}",
        f"topology.spines={leaves}",
        f"units.prefill_units={servers * 3 // 4}",
        f"units.decode_ranks={servers * 2}",
    )


_RATE_2048: Final = 2300.0

CASES: Final = (
    Case(
        name="moe-64",
        about="64 GPUs, EP 8, Mixtral-8x7B: a task graph of 1.35 million tasks",
        settings=(*_GPUS_64, *_arrivals(553, 87.5)),
    ),
    Case(
        name="cluster-2048",
        about="256 servers x 8 GPUs, Mixtral-8x22B TP 4 EP 8, 1,536 requests",
        settings=_cluster(256, requests=1536, rate=_RATE_2048),
    ),
    Case(
        name="cluster-2048-grouped",
        about="the same with symmetric collectives as one stream each",
        settings=(*_cluster(256, requests=1536, rate=_RATE_2048), "simulation.collectives=grouped"),
    ),
)

GROWTH: Final = (
    *(
        Case(
            name=f"servers-{servers}",
            about=f"{servers * 8} GPUs, 6 requests a server",
            settings=_cluster(servers, requests=6 * servers, rate=rate),
        )
        for servers, rate in ((8, 81.6), (16, 161.0), (32, 290.0))
    ),
    *(
        Case(
            name=f"load-{load}",
            about=f"128 GPUs, {rate:g} requests/s",
            settings=_cluster(16, requests=96, rate=rate),
        )
        for load, rate in ((0.4, 80.5), (1.6, 322.0))
    ),
    *(
        Case(
            name=f"requests-{requests}",
            about=f"128 GPUs, {requests} requests",
            settings=_cluster(16, requests=requests, rate=161.0),
        )
        for requests in (192, 384)
    ),
)


def chosen_cases(names: Sequence[str]) -> list[Case]:
    """Return the cases of these names; without names, all. Raises `UserError` for an unknown name."""
    known = {case.name: case for case in (*CASES, *GROWTH)}
    for name in names:
        if name not in known:
            raise UserError(f"--case {name}: there is no such case (cases: {', '.join(known)})")
    return [known[name] for name in names] or list(known.values())
