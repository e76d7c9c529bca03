"""Which machine plays which server of a job, and what cannot run on real servers."""

import msgspec
import pytest
from real_world import DENSE, real_job, request
from serving_world import job, placed

from testbed.cluster.assignment import assign
from testbed.cluster.inventory import Coordinator, Inventory, Server
from testbed.fabric import JobRefused
from testbed.job import Job
from testbed.topology import leaf_spine, star
from workers.options import Device


def inventory(*servers: Server) -> Inventory:
    return Inventory(coordinator=Coordinator(address="10.1.0.1"), servers=servers, keys="keys")


def machine(number: int, *, plays: str | None = None, gpus: int = 0) -> Server:
    return Server(host=f"node{number}", address=f"192.168.1.{number}", nic="eth1", server=plays, gpus=gpus)


def serving_job() -> Job:
    """Two units of two ranks on h1 to h4, and a decode rank on h5."""
    return job(*placed())


def test_machines_play_servers_in_order() -> None:
    assigned = assign(serving_job(), inventory(*map(machine, range(1, 6))))
    assert assigned.places == {rank: (f"node{rank + 1}", 0) for rank in range(5)}
    assert {name: one.host for name, one in assigned.machines.items()} == {
        f"h{i}": f"node{i}" for i in range(1, 6)
    }
    assert assigned.paths["h1 h5"] == ("h1", "s1", "h5")
    assert len(assigned.paths) == 5 * 4
    assert assigned.processes == 1


def test_a_machine_may_say_which_server_it_plays_and_the_others_fill_up() -> None:
    machines = [machine(1), machine(2, plays="h1"), machine(3), machine(4), machine(5)]
    assigned = assign(serving_job(), inventory(*machines))
    assert [assigned.machines[f"h{i}"].host for i in range(1, 6)] == [
        "node2",
        "node1",
        "node3",
        "node4",
        "node5",
    ]


def test_machines_that_are_left_over_have_no_ranks() -> None:
    assigned = assign(serving_job(), inventory(*map(machine, range(1, 9))))
    assert len(assigned.machines) == 5


def test_ranks_of_one_server_are_numbered_there() -> None:
    """Five ranks on two servers, in turn: h1 has ranks 0, 2 and 4."""
    made = job(*placed(servers=2))
    assigned = assign(made, inventory(machine(1), machine(2)))
    assert assigned.places == {
        0: ("node1", 0),
        1: ("node2", 0),
        2: ("node1", 1),
        3: ("node2", 1),
        4: ("node1", 2),
    }
    assert assigned.processes == 3


def refusal(made: Job, *servers: Server) -> str:
    with pytest.raises(JobRefused) as caught:
        assign(made, inventory(*servers))
    return str(caught.value)


def test_too_few_machines_are_refused() -> None:
    told = refusal(serving_job(), machine(1), machine(2), machine(3))
    assert told == (
        "servers: the ranks of the scenario need 5 servers, the inventory has 3; nobody plays h4, h5"
    )


def test_a_server_that_the_scenario_has_not_is_refused() -> None:
    told = refusal(serving_job(), *map(machine, range(1, 5)), machine(5, plays="h9"))
    assert told.startswith("servers[4].server: the scenario has no server 'h9'; it has h1, ")


def test_too_few_gpus_are_refused_if_they_are_asked_for() -> None:
    made = serving_job()
    made = msgspec.structs.replace(made, workers=msgspec.structs.replace(made.workers, device=Device.CUDA))
    machines = [machine(i, gpus=1) for i in range(1, 5)]
    assert assign(made, inventory(*machines, machine(5, gpus=1))).processes == 1
    told = refusal(made, *machines, machine(5))
    assert told == (
        "workers.device: is cuda, and 1 ranks are on node5, which has 0 GPUs according to the inventory"
    )


def test_real_layers_run_on_real_servers() -> None:
    made = real_job(DENSE, [request(0, 24, ())], units=1, per_unit=2, tp=2)
    assert assign(made, inventory(*map(machine, range(1, 4)))).processes == 1


def test_real_layers_that_cannot_be_computed_are_refused_before_any_server_is_asked() -> None:
    made = real_job(DENSE, [request(0, 24, ())], units=1, per_unit=2, tp=2)
    made = msgspec.structs.replace(made, scale=msgspec.structs.replace(made.scale, bytes_scale=0.5))
    told = refusal(made, *map(machine, range(1, 4)))
    assert "scale.bytes_scale is 0.5, and real tensors need 1" in told


def test_several_paths_are_refused_because_switches_choose_among_them() -> None:
    base = serving_job()
    topology = leaf_spine(leaves=2, spines=2, hosts_per_leaf=3, nic_bps=10**9, oversubscription=1.0)
    told = refusal(msgspec.structs.replace(base, topology=topology), *map(machine, range(1, 6)))
    assert told.startswith("topology.kind: 2 paths lead from h1 to h4; real switches choose one by a hash")


def test_one_path_is_enough() -> None:
    base = serving_job()
    topology = star(servers=5, nic_bps=10**9)
    assigned = assign(msgspec.structs.replace(base, topology=topology), inventory(*map(machine, range(1, 6))))
    assert assigned.paths["h2 h1"] == ("h2", "s1", "h1")


def test_weights_are_refused_because_nobody_sets_switches_up_for_them() -> None:
    made = msgspec.structs.replace(serving_job(), policy="static(s1=2, s2=1, s3=2, weights=99:1)")
    with pytest.raises(JobRefused, match=r"^policies: .*weights=99:1.* has weights of levels"):
        assign(made, inventory(*map(machine, range(1, 6))))


def test_what_only_a_simulated_network_has_is_refused() -> None:
    made = serving_job()
    hybrid = msgspec.structs.replace(made.simulation, exact=True, hybrid=True)
    with pytest.raises(JobRefused, match=r"^simulation\.order: hybrid"):
        assign(msgspec.structs.replace(made, simulation=hybrid), inventory(*map(machine, range(1, 6))))
