"""Files that describe a network, and the topologies of scenarios that name them."""

from pathlib import Path

import pytest

from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.scenario.files import files_of
from experiments.scenario.reading import load_scenario, override
from experiments.scenario.scenario import Scenario
from testbed.fabrics import FABRICS
from testbed.topology import Topology, TopologyKind

GBPS = 10**9

LINKS = """from,to,gbps
h1,leaf1,50
h2, leaf1, 50
# the third server is older
leaf2,h3,25
h4,leaf2,50
leaf1,spine1,100
leaf2,spine1,40
"""

MATRIX = """0 50 10
25 0 100
10 40 0
"""

SIMAI = """15 2 4 3 18 H100
8 9 10 11
12 13 14
{gpus}12 14 800Gbps 0.0005ms 0
13 14 1.6Tbps 0.0005ms 0
""".format(
    gpus="".join(
        f"{gpu} {8 + gpu // 2} 2880Gbps 0.000025ms 0\n{gpu} {12 + gpu % 2} 400Gbps 0.0005ms 0\n"
        for gpu in range(8)
    )
)
"""4 servers with 2 GPUs and an NVSwitch each (8 to 11), two rails (12 and 13), and a spine (14)."""

ASTRA = """6 2 5
4 5
0 4 50Gbps 0.005ms 0.000000
1 4 50Gbps 0.005ms 0.000000
2 5 50Gbps 0.005ms 0.000000
3 5 25000Mbps 0.005ms 0.000000
4 5 100Gbps 0.005ms 0.000000
"""


def scenario(tmp_path: Path, format: str, text: str, *settings: str, name: str = "two-flows") -> Scenario:
    path = tmp_path / "network.txt"
    path.write_text(text, encoding="utf-8")
    file = ("kind=file", f"format={format}", f"path={path}")
    flows = "workload.flows=[{id: a, src: h1, dst: h2, bytes: 1000000000}]"
    work = [flows] if name == "two-flows" else []
    texts = (*(f"topology.{key}" for key in file), *work, "fabric=sim", "policies=[fair]", *settings)
    return load_scenario(name, [override(each) for each in texts])


def topology(tmp_path: Path, format: str, text: str, *settings: str) -> Topology:
    return resolve(scenario(tmp_path, format, text, *settings)).jobs[0].topology


def rates(of: Topology) -> dict[str, float]:
    return {link.id: link.bps / GBPS for link in of.links}


# --- what a file means ------------------------------------------------------------------------------


def test_a_file_of_links_is_read_link_by_link(tmp_path: Path) -> None:
    found = topology(tmp_path, "links", LINKS)
    assert found.kind is TopologyKind.FILE
    assert found.servers == ("h1", "h2", "h3", "h4")
    assert found.switches == ("leaf1", "leaf2", "spine1")
    assert rates(found) == {
        "h1->leaf1": 50,
        "leaf1->h1": 50,
        "h2->leaf1": 50,
        "leaf1->h2": 50,
        "h3->leaf2": 25,
        "leaf2->h3": 25,
        "h4->leaf2": 50,
        "leaf2->h4": 50,
        "leaf1->spine1": 100,
        "spine1->leaf1": 100,
        "leaf2->spine1": 40,
        "spine1->leaf2": 40,
    }
    assert list(found.paths("h1", "h4")) == [("h1->leaf1", "leaf1->spine1", "spine1->leaf2", "leaf2->h4")]


def test_several_links_of_a_server_are_its_nics(tmp_path: Path) -> None:
    """Two rails and nothing between them: traffic changes rails over the NVSwitch."""
    text = "from,to,gbps\n" + "".join(f"h{i},rail{n},400\n" for i in (1, 2, 3) for n in (0, 1))
    keys = ("topology.gpus_per_server=2", "topology.nvlink_gbps=3600")
    found = topology(tmp_path, "links", text, *keys)
    assert found.pxn
    assert list(found.paths("h1.gpu0", "h2.gpu1")) == [
        ("h1.gpu0->h1.nvs", "h1.nvs->h1.gpu1", "h1.nic1->rail1", "rail1->h2.nic1")
    ]


def test_parallel_links_between_switches_add_up(tmp_path: Path) -> None:
    text = LINKS + "spine1,leaf2,20\n"
    assert rates(topology(tmp_path, "links", text))["leaf2->spine1"] == 60
    note = "network.txt: parallel links between two switches count as one link of their total rate"
    assert note in resolve(scenario(tmp_path, "links", text)).notes


def test_a_matrix_has_a_link_for_each_pair_and_nics_as_fast_as_the_fastest(tmp_path: Path) -> None:
    """Row h2: 25 to h1 and 100 to h3, so it sends at 100. Column h2: 50 and 40, so it receives at 50."""
    found = topology(tmp_path, "matrix", MATRIX)
    assert list(found.paths("h2", "h3")) == [("h2->x2", "x2->x3", "x3->h3")]
    assert {port: rate for port, rate in rates(found).items() if "h2" in port or "x2" in port} == {
        "h2->x2": 100,
        "x2->h2": 50,
        "x1->x2": 50,
        "x2->x1": 25,
        "x2->x3": 100,
        "x3->x2": 40,
    }


@pytest.mark.parametrize("text", ["0,50,10\n25,0,100\n10,40,0\n", "1 50 10\n25 7 100\n\n10 40 0"])
def test_commas_blanks_and_the_diagonal_make_no_difference(tmp_path: Path, text: str) -> None:
    assert topology(tmp_path, "matrix", text) == topology(tmp_path, "matrix", MATRIX)


def test_a_topology_file_of_simai(tmp_path: Path) -> None:
    """GPUs 2 and 3 are server h2. NIC 1 of every server is on switch 13, so traffic changes rails inside."""
    found = topology(tmp_path, "simai", SIMAI)
    assert found.servers == ("h1", "h2", "h3", "h4")
    assert found.switches == ("s12", "s13", "s14")
    assert (found.shape.gpus, found.shape.nics, found.shape.nvlink_bps) == (2, 2, 2880 * GBPS)
    assert found.pxn
    assert list(found.paths("h1.gpu0", "h2.gpu1")) == [
        ("h1.gpu0->h1.nvs", "h1.nvs->h1.gpu1", "h1.nic1->s13", "s13->h2.nic1")
    ]
    found_rates = rates(found)
    assert (found_rates["h4.nic0->s12"], found_rates["s14->s13"]) == (400, 1600)
    notes = resolve(scenario(tmp_path, "simai", SIMAI)).notes
    assert "network.txt: delays of links to NVSwitches are left out" in notes
    assert found.latency_s([("h1.gpu0", "h2.gpu1")]) == pytest.approx(2 * 500e-9)


def test_a_gpu_with_two_ports_in_simai_has_two_nics(tmp_path: Path) -> None:
    """A dual ToR: GPU 0 and 1 are on switches 2 and 3, one server each."""
    text = "4 1 0 2 5 A100 8\n2 3\n" + "".join(
        f"{a} {b} 200Gbps 0ms 0\n" for a, b in ((0, 2), (0, 3), (1, 2), (3, 1), (2, 3))
    )
    found = topology(tmp_path, "simai", text)
    assert list(found.paths("h1.gpu0", "h2.gpu0")) == [
        ("h1.nic0->s2", "s2->h2.nic0"),
        ("h1.nic1->s3", "s3->h2.nic1"),
    ]


def test_a_topology_file_of_astra_sim_has_a_gpu_in_each_host(tmp_path: Path) -> None:
    found = topology(tmp_path, "astra-sim", ASTRA)
    assert found.servers == ("h1", "h2", "h3", "h4")
    assert found.shape.gpus == 1
    assert rates(found)["h4->s5"] == 25
    assert list(found.paths("h1", "h4")) == [("h1->s4", "s4->s5", "s5->h4")]


# --- in a scenario ----------------------------------------------------------------------------------


def test_a_flow_crosses_the_link_of_its_pair(tmp_path: Path) -> None:
    """1 GB from h1 to h3 at 10 Gb/s: 0.8 s. From h1 to h2 at 50 Gb/s in the meantime: 0.16 s."""
    flows = "workload.flows=[{}]".format(
        ", ".join(f"{{id: to-{dst}, src: h1, dst: {dst}, bytes: 1000000000}}" for dst in ("h2", "h3"))
    )
    (job,) = resolve(scenario(tmp_path, "matrix", MATRIX, flows)).jobs
    rows = FABRICS["sim"]().run(job, lambda _: None).flows
    # Both leave by a NIC of 50 Gb/s: 10 for the slow one, and so 40 for the other until it ends at 0.2 s.
    assert {row.id: row.finish_ns / 1e9 for row in rows} == {"to-h2": pytest.approx(0.2), "to-h3": 0.8}


def test_requests_are_served_on_a_network_of_a_file(tmp_path: Path) -> None:
    settings = ("workload.requests=4", "units.prefill_units=1", "units.ranks_per_unit=4")
    (job,) = resolve(
        scenario(
            tmp_path,
            "simai",
            SIMAI,
            *settings,
            name="quickstart",
        )
    ).jobs
    record = FABRICS["sim"]().run(job, lambda _: None)
    assert record.fidelity.faithful
    assert all(row.first_token_ns is not None for row in record.requests)


def test_the_file_is_one_that_the_scenario_names(tmp_path: Path) -> None:
    assert files_of(scenario(tmp_path, "links", LINKS)) == [tmp_path / "network.txt"]


def test_a_path_in_a_file_is_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "net.csv").write_text(LINKS)
    mine = tmp_path / "mine.yaml"
    mine.write_text("topology: {kind: file, path: net.csv}\n")
    assert load_scenario(str(mine)).topology.path == str(tmp_path / "net.csv")


def test_keys_that_the_file_replaces_are_noted(tmp_path: Path) -> None:
    found = scenario(tmp_path, "links", LINKS, "topology.servers=3", "topology.nic_gbps=1")
    note = "topology.servers, topology.nic_gbps: no effect, in a file topology"
    assert note in resolve(found).notes


@pytest.mark.parametrize(
    ("format", "settings", "told"),
    [
        ("links", ["other_nic_gbps={h1: 5}"], "topology.other_nic_gbps: the file of topology.path has"),
        ("links", ["nics_per_server=2"], "topology.nics_per_server: a server has 1 NICs in the file"),
        ("simai", ["gpus_per_server=8"], "topology.gpus_per_server: a server has 2 GPUs in the file"),
        ("simai", ["nvlink_gbps=1"], "topology.nvlink_gbps: the file of topology.path says what is inside"),
        ("links", ["path=null"], "topology.path: must be given with topology.kind: file"),
        ("links", ["path=/nowhere.csv"], "topology.path: /nowhere.csv: no such file"),
    ],
)
def test_keys_that_contradict_the_file_are_refused(
    tmp_path: Path, format: str, settings: list[str], told: str
) -> None:
    texts = {"links": LINKS, "simai": SIMAI}
    with pytest.raises(UserError) as caught:
        scenario(tmp_path, format, texts[format], *(f"topology.{each}" for each in settings))
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("format", "text", "told"),
    [
        ("links", "h1,leaf1,50\n", "line 1: not the header from,to,gbps"),
        ("links", LINKS + "h1,h2,50\n", "line 9: a link from h1 to h2; a server is linked to switches only"),
        ("links", LINKS + "h5,leaf1,0\n", "line 9: '0' is not a rate of 0.001 to 100000 Gb/s"),
        ("links", LINKS + "h5,leaf1\n", "line 9: 2 values; a link has from,to,gbps"),
        ("links", LINKS + "h6,leaf1,50\n", "h5 has no link; servers are h1 to h6"),
        ("links", LINKS + "h2,leaf2,50\n", "h2 has 2 links to switches and h1 has 1"),
        ("links", LINKS + "1,leaf2,50\n", "line 9: '1' is not a name of a server (h1) or a switch (leaf1)"),
        ("links", LINKS + "leaf1,leaf1,50\n", "line 9: a link from leaf1 to leaf1"),
        ("links", LINKS.replace("leaf2,spine1,40\n", ""), "no path from h1's NIC 0 to h3's NIC 0"),
        ("matrix", "0 1\n1\n", "line 2: 1 numbers in a matrix of 2 rows"),
        ("matrix", "0 0\n1 0\n", "line 1: 0 Gb/s from h1 to h2; every pair needs 0.001 to 100000"),
        ("matrix", "0 a\n1 0\n", "line 1: could not convert string to float: 'a'; a matrix has only numbers"),
        ("matrix", "0\n", "1 rows; a matrix of bandwidths has 2 to 256"),
        ("matrix", "0 nan\n1 0\n", "line 1: nan Gb/s from h1 to h2"),
        ("simai", SIMAI + "0 1 1Gbps 0ms 0\n", "line 22: '0' comes after the last link"),
        ("simai", SIMAI.replace("15 2 4 3 18", "15 2 4 3 19"), "ends before a node of a link"),
        ("simai", SIMAI.replace("15 2", "15 3"), "line 1: 8 GPUs are not two or more servers of 3"),
        ("simai", SIMAI.replace("0 12 400", "0 1 400"), "line 5: a link between nodes 0 and 1"),
        ("simai", SIMAI.replace("2 9 2880", "2 8 2880"), "line 8: NVSwitch 8 joins several servers"),
        ("simai", SIMAI.replace("2 9 2880", "2 9 2000"), "GPU 2 has 2000 Gb/s to NVSwitches and GPU 0 2880"),
        ("simai", SIMAI.replace("2 12 400Gbps", "2 12 400G"), "line 9: '400G' is not a rate such as 400Gbps"),
        ("astra-sim", ASTRA.replace("0.000000", "0.01", 1), "line 3: an error rate of 0.01: links that lose"),
        ("astra-sim", ASTRA.replace("0.005ms", "5", 1), "line 3: '5' is not a time such as 0.0005ms"),
        ("astra-sim", ASTRA.replace("0.005ms", "5s", 1), "line 3: '5s' is more than a second"),
        ("astra-sim", ASTRA.replace("3 5", "3 9"), "line 6: '9' is not a node of a link"),
        ("astra-sim", ASTRA.replace("3 5 25000Mbps", "3 5 5"), "line 6: '5' is not a rate such as 400Gbps"),
        ("astra-sim", ASTRA.replace("3 5 25000Mbps ", "3 5 "), "line 6: a link is written as: from to rate"),
        ("astra-sim", SIMAI, "line 1: 6 values; in a file of astra-sim it has 3: nodes, switches, links"),
        ("simai", ASTRA, "line 1: 3 values; in a file of SimAI it has 6 or 7"),
    ],
)
def test_what_a_file_gets_wrong_is_told_with_its_line(
    tmp_path: Path, format: str, text: str, told: str
) -> None:
    with pytest.raises(UserError) as caught:
        resolve(scenario(tmp_path, format, text))
    assert told in str(caught.value)
