"""Bytes of traffic on every port, when the equal-cost paths of a pair share them evenly."""

import itertools

import pytest

from testbed.topology import ServerShape, Topology, fat_tree, leaf_spine, rail_optimised, star

NVLINK = ServerShape(gpus=2, nics=2, nvlink_bps=1, pcie_bps=1)
FOUR_NICS = ServerShape(gpus=2, nics=4, nvlink_bps=1, pcie_bps=1)

TOPOLOGIES = [
    star(servers=4, nic_bps=1),
    star(servers=4, nic_bps=1, shape=ServerShape(gpus=2, nvlink_bps=1)),
    leaf_spine(leaves=3, spines=3, hosts_per_leaf=2, nic_bps=3, oversubscription=1.0, shape=NVLINK),
    fat_tree(k=4, servers=13, nic_bps=1),
    rail_optimised(servers=5, servers_per_group=2, spines=2, nic_bps=1, oversubscription=1.0, shape=NVLINK),
    rail_optimised(
        servers=4,
        servers_per_group=2,
        spines=2,
        nic_bps=1,
        oversubscription=1.0,
        shape=ServerShape(gpus=2, nics=2),
    ),
    leaf_spine(leaves=2, spines=3, hosts_per_leaf=2, nic_bps=3, oversubscription=1.0, shape=FOUR_NICS),
    star(servers=3, nic_bps=1, shape=ServerShape(gpus=1, nics=3)),
    rail_optimised(
        servers=5, servers_per_group=2, spines=2, nic_bps=1, oversubscription=1.0, shape=FOUR_NICS
    ),
    rail_optimised(
        servers=4,
        servers_per_group=2,
        spines=2,
        nic_bps=1,
        oversubscription=1.0,
        shape=ServerShape(gpus=2, nics=4),
    ),
]


def endpoints(topology: Topology) -> list[str]:
    gpus = range(topology.shape.gpus or 1)
    return list(dict.fromkeys(topology.endpoint(server, gpu) for server in topology.servers for gpu in gpus))


def path_by_path(topology: Topology, traffic: dict[tuple[str, str], float]) -> dict[str, float]:
    """The loads by their definition."""
    load: dict[str, float] = {}
    for (src, dst), size_bytes in traffic.items():
        paths = list(topology.paths(src, dst))
        for port in itertools.chain.from_iterable(paths):
            load[port] = load.get(port, 0.0) + size_bytes / len(paths)
    return load


def test_four_paths_of_a_fat_tree_carry_a_quarter_each() -> None:
    """800 bytes from pod 1 to pod 4: half over each aggregation switch, a quarter over each core switch."""
    load = fat_tree(k=4, servers=16, nic_bps=1).loads({("h1", "h16"): 800.0})
    assert load["h1->edge1"] == load["edge8->h16"] == 800.0
    assert load["edge1->agg1"] == load["edge1->agg2"] == load["agg8->edge8"] == 400.0
    assert [load[port] for port in ("agg1->core1", "agg1->core2", "agg2->core3", "core4->agg8")] == [
        200.0
    ] * 4
    assert len(load) == 2 + 4 + 8


def test_traffic_inside_a_server_loads_its_nvlinks_alone() -> None:
    load = TOPOLOGIES[1].loads({("h1.gpu0", "h1.gpu1"): 5.0, ("h1.gpu1", "h1.gpu1"): 7.0})
    assert load == {"h1.gpu0->h1.nvs": 5.0, "h1.nvs->h1.gpu1": 5.0}


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda t: f"{t.kind}-{t.shape.nics}")
def test_loads_are_those_of_every_path_by_itself(topology: Topology) -> None:
    pairs = itertools.product(endpoints(topology), repeat=2)
    traffic = {pair: 1.0 + i % 7 for i, pair in enumerate(pairs)}
    assert topology.loads(traffic) == pytest.approx(path_by_path(topology, traffic))


@pytest.mark.parametrize("topology", TOPOLOGIES, ids=lambda t: f"{t.kind}-{t.shape.nics}")
def test_even_loads_are_those_of_all_the_pairs(topology: Topology) -> None:
    """Senders and receivers overlap, and some endpoints have two ranks."""
    nodes = endpoints(topology)
    senders = {node: 1 + i % 2 for i, node in enumerate(nodes[:-1])}
    receivers = {node: 2 - i % 2 for i, node in enumerate(nodes[1:])}
    pairs = sum(senders.values()) * sum(receivers.values())
    traffic = {
        (src, dst): 100.0 * sent * received / pairs
        for src, sent in senders.items()
        for dst, received in receivers.items()
    }
    assert topology.even_loads(senders, receivers, 100.0) == pytest.approx(topology.loads(traffic))
