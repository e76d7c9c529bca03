#!/usr/bin/env python3
"""Draw clusters at random. Print a line for each: its name, and the settings that `mfs sweep` takes for it.

    experiments/paper/17-drawn-clusters/draw_clusters.py COUNT SEED

A cluster has two prefill units of a model, and one or two servers of decode workers. Models take turns. What
is drawn is the GPU, the topology, the rate of NICs, the kind of prompts, the load and the number of decode
servers.
"""

import random
import sys
from collections.abc import Iterator
from typing import NamedTuple


class Unit(NamedTuple):
    """A model and the parallelism of a unit. `ranks` are on servers with `gpus` GPUs, in a row."""

    model: str
    ranks: int
    gpus: int
    settings: tuple[str, ...]


STRIDED = "units.expert_groups=strided"
UNITS = (
    Unit("mixtral-8x7b", 8, 4, ("units.tp=1", "units.ep=8", "units.decode_tp=2")),
    Unit("mixtral-8x22b", 32, 8, ("units.tp=4", "units.ep=8", "units.decode_tp=4", STRIDED)),
    Unit("dbrx", 32, 8, ("units.tp=2", "units.ep=16", "units.decode_tp=4", STRIDED)),
    Unit("qwen3-30b-a3b", 16, 8, ("units.tp=1", "units.ep=16", "units.decode_tp=1")),
    Unit("qwen3-235b-a22b", 32, 8, ("units.tp=1", "units.ep=32", "units.decode_tp=8")),
    Unit("llama-3-8b", 16, 8, ("units.tp=4", "units.sp=4", "units.decode_tp=4")),
    Unit("qwen2.5-32b", 16, 8, ("units.tp=4", "units.sp=4", "units.decode_tp=4")),
    Unit("llama-3-70b", 16, 8, ("units.tp=8", "units.pp=2", "units.decode_tp=8")),
)
GPUS = {"a100": (2400, 256), "h100": (3600, 512)}
"""The rates of NVLink and of PCIe, in Gb/s each way."""

TOPOLOGIES = {
    "star": ("topology.kind=star",),
    "rails": ("topology.kind=rail-optimised",),
    "leaf-spine": ("topology.kind=leaf-spine", "topology.leaves=2", "topology.spines=2"),
}
NICS_GBPS = (10, 25, 50, 100)
KINDS = ("conversation", "agent")
LOADS = (0.5, 0.7, 0.9)
PREFILL_UNITS = 2


def clusters(count: int, seed: int) -> Iterator[str]:
    drawn = random.Random(seed)
    for number in range(1, count + 1):
        unit = UNITS[(number - 1) % len(UNITS)]
        gpu, topology = drawn.choice(list(GPUS)), drawn.choice(list(TOPOLOGIES))
        nic_gbps, kind, load = drawn.choice(NICS_GBPS), drawn.choice(KINDS), drawn.choice(LOADS)
        decode_servers = drawn.choice((1, 2))
        nvlink, pcie = GPUS[gpu]
        servers = PREFILL_UNITS * unit.ranks // unit.gpus + decode_servers
        settings = (
            f"model={unit.model}",
            f"gpu={gpu}",
            *TOPOLOGIES[topology],
            f"topology.servers={servers + servers % 2}",
            f"topology.gpus_per_server={unit.gpus}",
            f"topology.nics_per_server={unit.gpus}",
            f"topology.nic_gbps={nic_gbps}",
            f"topology.nvlink_gbps={nvlink}",
            f"topology.pcie_gbps={pcie}",
            f"units.prefill_units={PREFILL_UNITS}",
            f"units.ranks_per_unit={unit.ranks}",
            f"units.ranks_per_server={unit.gpus}",
            f"units.decode_ranks={decode_servers * unit.gpus}",
            *unit.settings,
            f"workload.kind={kind}",
            f"workload.load={load}",
        )
        name = f"{number:02}-{unit.model}-{gpu}-{topology}-{nic_gbps}g-{kind}-{load}"
        yield " ".join([name, *(f"--set {setting}" for setting in settings)])


if __name__ == "__main__":
    print("\n".join(clusters(int(sys.argv[1]), int(sys.argv[2]))))
