"""Which equal-cost path a connection takes on the simulated fabric."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flow_table import connection as tcp
from flow_table import wiring_of

from controller.dispatcher import Dispatcher
from controller.flow import Stage
from controller.openflow import RuleBook, ports_of
from controller.policies import make_policy
from controller.protocol import GroupUp, LaneUp
from controller.scheduler import Scheduler
from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.simulation.paths import (
    PATH_CHOICES,
    Connection,
    PathChoiceError,
    make_path_choice,
    path_choice_names,
)
from testbed.topology import Topology, fat_tree, leaf_spine, server_ip

GBPS = 10**9
TREE = fat_tree(k=4, servers=16, nic_bps=GBPS)


def connection(key: str, *, src: int = 0, dst: int = 15, flow: str = "f") -> Connection:
    return Connection(
        src_ip=server_ip(src), dst_ip=server_ip(dst), key=key, flow=flow, stage=Stage.P2D, size_bytes=1000
    )


def chosen(
    choice: str, key: str, busy: dict[str, float] | None = None, *, seed: int = 1, topology: Topology = TREE
) -> tuple[str, ...]:
    """The path of a connection from the first server to the last."""
    paths = topology.paths(topology.servers[0], topology.servers[-1])
    work = busy or {}
    number = make_path_choice(choice, seed).choose(
        paths, connection(key, dst=len(topology.servers) - 1), lambda port: work.get(port, 0.0)
    )
    return paths[number]


# --- hash ---------------------------------------------------------------------------------------------


def test_all_flows_of_a_connection_take_one_path() -> None:
    choice = make_path_choice("hash", seed=1)
    paths = TREE.paths("h1", "h16")
    numbers = {choice.choose(paths, connection("S3.0-1.0#0", flow=f"f{i}"), lambda _: 0.0) for i in range(20)}
    assert len(numbers) == 1


def test_another_seed_is_another_draw() -> None:
    keys = [f"S3.0-1.{i}#0" for i in range(40)]
    assert [chosen("hash", key) for key in keys] == [chosen("hash", key) for key in keys]
    assert [chosen("hash", key) for key in keys] != [chosen("hash", key, seed=2) for key in keys]


def test_many_connections_use_every_path_about_equally() -> None:
    """400 draws of 4 paths: 100 each, standard deviation 8.7; 60 is more than four of those away."""
    drawn = [chosen("hash", f"S3.0-1.{i}#0") for i in range(400)]
    assert {drawn.count(path) > 60 for path in TREE.paths("h1", "h16")} == {True}


def test_lanes_and_groups_take_the_paths_of_the_emulated_fabric() -> None:
    """The dispatcher of the emulation registers the same lanes and groups on a fat-tree."""
    wiring = wiring_of(TREE, seed=3)
    rules = RuleBook(wiring)
    dispatcher = Dispatcher(Scheduler(make_policy("fair"), ports=wiring.port_bps), rules)
    choice = make_path_choice("hash", seed=3)
    paths = TREE.paths("h1", "h16")
    for i in range(20):
        lane = f"S3.0-9.{i}"
        dispatcher.lane_up(
            LaneUp(
                lane=lane,
                stage=Stage.P2D,
                src=0,
                dst=9,
                src_server="h1",
                dst_server="h16",
                connections=(tcp(wiring, "h1", "h16", 40_000 + i),),
            )
        )
        number = choice.choose(paths, connection(f"{lane}#0"), lambda _: 0.0)
        assert paths[number] == ports_of(rules.path(f"{lane}#0"))
    for rank in range(20):
        dispatcher.group_up(
            GroupUp(
                group="p0.ep0",
                rank=rank,
                server="h1",
                peers={99: "h16"},
                connections={99: (tcp(wiring, "h1", "h16", 50_000 + rank),)},
            )
        )
        number = choice.choose(paths, connection(f"p0.ep0:{rank}-h16"), lambda _: 0.0)
        assert paths[number] == ports_of(rules.path(f"p0.ep0:{rank}-99#0"))


# --- least-loaded -------------------------------------------------------------------------------------


def test_least_loaded_avoids_the_path_with_the_busiest_port() -> None:
    """Each of the other three paths has a link with work; core3 is reached over agg2."""
    busy = {"agg1->core1": 0.1, "core2->agg7": 0.2, "core4->agg8": 0.3}
    for i in range(20):
        assert chosen("least-loaded", f"c{i}", busy)[2] == "agg2->core3"


def test_least_loaded_takes_the_lesser_evil() -> None:
    """agg1 has two ports with 2 s. Over agg2, the busiest port has 3 s towards core3, 1 s towards core4."""
    busy = {"agg1->core1": 2.0, "agg1->core2": 2.0, "agg2->core3": 3.0, "agg2->core4": 1.0}
    assert chosen("least-loaded", "c", busy)[2] == "agg2->core4"


def test_a_busy_nic_does_not_hide_what_differs_behind_it() -> None:
    """All paths share h1->edge1 with its 9 s; the next busiest port decides."""
    busy = {"h1->edge1": 9.0, "edge1->agg1": 0.5, "agg2->core3": 0.5}
    for i in range(20):
        assert chosen("least-loaded", f"c{i}", busy)[2] == "agg2->core4"


def test_of_paths_that_are_alike_the_hashed_one_is_taken() -> None:
    keys = [f"c{i}" for i in range(40)]
    assert [chosen("least-loaded", key) for key in keys] == [chosen("hash", key) for key in keys]


def test_of_equals_the_first_after_the_hashed_one_is_taken() -> None:
    paths = list(TREE.paths("h1", "h16"))
    for i in range(20):
        hashed = paths.index(chosen("hash", f"c{i}"))
        busy = {paths[hashed][2]: 1.0}
        assert chosen("least-loaded", f"c{i}", busy) == paths[(hashed + 1) % 4]


def test_with_one_path_there_is_nothing_to_choose() -> None:
    topology = leaf_spine(leaves=1, spines=2, hosts_per_leaf=2, nic_bps=GBPS, oversubscription=1.0)
    for name in PATH_CHOICES:
        assert chosen(name, "c", {"h1->leaf1": 5.0}, topology=topology) == ("h1->leaf1", "leaf1->h2")


# --- by name ------------------------------------------------------------------------------------------


def install(folder: Path, source: str, target: str) -> None:
    """Put a package with an entry point into `folder`, as an installer would."""
    (folder / "odd_paths.py").write_text(source)
    info = folder / "odd_paths-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd_paths\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[mfs.path_choices]\nodd = odd_paths:{target}\n")


Install = Callable[[str, str], None]


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "odd_paths", raising=False)
    return lambda source, target: install(tmp_path, source, target)


def test_a_package_can_bring_a_choice(installed: Install) -> None:
    installed(
        "class Last:\n"
        "    def __init__(self, seed): pass\n"
        "    def choose(self, paths, connection, busy): return len(paths) - 1\n",
        "Last",
    )
    assert path_choice_names() == ["hash", "least-loaded", "odd"]
    assert chosen("odd", "c")[2] == "agg2->core4"
    scenario = load_scenario("quickstart", [override("simulation.paths=odd")])
    assert resolve(scenario).jobs[0].simulation.paths == "odd"


@pytest.mark.parametrize(
    ("target", "complaint"),
    [
        ("missing", r"path choice 'odd' \(odd_paths:missing\) does not load"),
        ("number", "does not load: 'int' object is not callable"),
        ("nothing", "what odd_paths:nothing makes has no method choose"),
    ],
)
def test_an_entry_point_that_is_no_choice_is_named(installed: Install, target: str, complaint: str) -> None:
    installed("number = 3\ndef nothing(seed): return None\n", target)
    with pytest.raises(PathChoiceError, match=complaint):
        make_path_choice("odd", seed=1)


def test_a_name_that_nothing_has_is_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"simulation\.paths: .* no path choice 'hsh'; did you mean 'hash'"):
        load_scenario("quickstart", [override("simulation.paths=hsh")])


def test_the_default_is_the_hash_of_the_emulation() -> None:
    assert resolve(load_scenario("quickstart")).jobs[0].simulation.paths == "hash"
