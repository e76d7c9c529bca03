"""Jobs that the emulated fabric refuses to start, and the keys it names."""

from collections.abc import Callable
from types import SimpleNamespace

import msgspec
import psutil
import pytest
from serving_world import job, placed, prompt

from testbed.emulation import fabric_mininet, requirements
from testbed.emulation.fabric_mininet import MininetFabric
from testbed.fabric import FabricUnavailable, JobRefused, NotOnThisMachine, Requirement, RunProgress
from testbed.job import Job, Scale
from testbed.topology import ServerShape, Topology, Wire, rail_optimised, star, wired

MBPS = 10**6


def sized(
    *,
    servers: int = 5,
    per_unit: int = 2,
    nic_bps: int = 100 * MBPS,
    lanes: int = 1,
    dilation: float = 1.0,
    bytes_scale: float = 1.0,
) -> Job:
    made = job(*placed(servers=servers, per_unit=per_unit, nic_bps=nic_bps, ep=1))
    return msgspec.structs.replace(
        made,
        workers=msgspec.structs.replace(made.workers, lanes_s1=lanes, lanes_s3=lanes),
        scale=Scale(time_dilation=dilation, bytes_scale=bytes_scale),
    )


Run = Callable[[Job], object]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a job on a machine with all requirements and 8 GiB free, but stops short of the sandbox."""
    monkeypatch.setattr(fabric_mininet, "requirements", list)
    monkeypatch.setattr(fabric_mininet, "run_in_sandbox", lambda job, progress: "started")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=8 * 2**30))

    def silent(_: RunProgress) -> None:
        return None

    return lambda job: MininetFabric().run(job, silent)


def test_a_job_that_fits_is_started(run: Run) -> None:
    assert run(sized()) == "started"


def test_weights_that_leave_a_level_too_little(run: Run) -> None:
    def weighted(weights: str) -> Job:
        return msgspec.structs.replace(sized(), policy=f"static(s1=2, s2=1, s3=2, weights={weights})")

    assert run(weighted("99:1")) == "started"
    with pytest.raises(JobRefused, match=r"^policies: .*leaves P2 0\.50% of a port; .*at least 0\.9%"):
        run(weighted("199:1"))


def test_a_decode_choice_that_knows_the_ports_of_this_moment(run: Run) -> None:
    made = sized()
    serving = msgspec.structs.replace(made.serving, decode_choice="netkv")
    requests = tuple(prompt(number, 8) for number in range(2))
    assert run(msgspec.structs.replace(made, serving=serving)) == "started"  # there is nothing to choose
    with pytest.raises(JobRefused, match=r"^serving\.decode: netkv .*only the simulated fabric"):
        run(msgspec.structs.replace(made, serving=serving, requests=requests))


def test_an_exact_order_at_servers(run: Run) -> None:
    made = sized()
    simulation = msgspec.structs.replace(made.simulation, exact=True, hybrid=True)
    with pytest.raises(JobRefused, match=r"^simulation\.order: hybrid needs servers"):
        run(msgspec.structs.replace(made, simulation=simulation))


def test_too_many_servers(run: Run) -> None:
    assert run(sized(servers=64, nic_bps=10 * MBPS)) == "started"
    with pytest.raises(NotOnThisMachine, match=r"^topology: 65 servers are too many .*\(at most 64\)$"):
        run(sized(servers=65, nic_bps=10 * MBPS))


def test_too_many_ranks_for_the_memory(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=500 * 2**20))
    with pytest.raises(NotOnThisMachine, match=r"^units: 5 ranks need about 600 MiB, 500 MiB are available$"):
        run(sized())


def test_too_many_lanes(run: Run) -> None:
    """12 ordered pairs of the 5 ranks fetch and 4 send: 16 pairs with 250 lanes each make 4,000."""
    assert run(sized(lanes=250)) == "started"
    with pytest.raises(
        NotOnThisMachine, match=r"^units: 5 ranks need 4016 lanes \(at most 4000\).*workers\.lanes"
    ):
        run(sized(lanes=251))


def test_links_too_slow_to_say_anything(run: Run) -> None:
    assert run(sized(dilation=100.0)) == "started"
    with pytest.raises(
        NotOnThisMachine,
        match=r"^scale: the slowest link would run at 0\.990 Mb/s .*raise scale\.bytes_scale",
    ):
        run(sized(dilation=101.0))


def test_links_too_fast_for_one_machine(run: Run) -> None:
    """Five NICs of 800 Mb/s are 4 Gb/s. The ports of the switch do not count."""
    assert run(sized(bytes_scale=8.0)) == "started"
    with pytest.raises(
        NotOnThisMachine, match=r"^scale: the servers' NICs would carry 4\.1 Gb/s .*lower scale\.bytes_scale"
    ):
        run(sized(bytes_scale=8.2))


@pytest.mark.parametrize(
    ("key", "topology"),
    [
        ("nics_per_server", star(servers=5, nic_bps=10 * MBPS, shape=ServerShape(gpus=2, nics=2))),
        ("nvlink_gbps", star(servers=5, nic_bps=10 * MBPS, shape=ServerShape(gpus=2, nvlink_bps=MBPS))),
        ("pcie_gbps", star(servers=5, nic_bps=10 * MBPS, shape=ServerShape(gpus=2, pcie_bps=MBPS))),
        (
            "kind",
            rail_optimised(
                servers=5,
                servers_per_group=5,
                spines=1,
                nic_bps=10 * MBPS,
                oversubscription=1.0,
                shape=ServerShape(gpus=1),
            ),
        ),
    ],
)
def test_servers_with_parts_are_not_emulated(run: Run, key: str, topology: Topology) -> None:
    with pytest.raises(JobRefused, match=rf"^topology\.{key}: emulated servers have one NIC"):
        run(msgspec.structs.replace(sized(), topology=topology))


def test_what_the_machine_lacks_is_said_before_anything_is_tried(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    ovs = Requirement(name="Open vSwitch", ok=False, detail="not installed", fix="apt install openvswitch")
    nice = Requirement(name="kernel datapath", ok=False, detail="no module", needed=False)
    monkeypatch.setattr(fabric_mininet, "requirements", lambda: [ovs, nice])
    with pytest.raises(FabricUnavailable) as caught:
        run(sized())
    assert (caught.value.fabric, caught.value.missing) == ("mininet", [ovs])


def test_what_the_machine_has_is_looked_up_once_per_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command makes a fabric to choose one, another to run it, and a sweep one per cell."""
    lookups = []
    monkeypatch.setattr(requirements, "_root", lambda: lookups.append("now"))
    requirements.requirements.cache_clear()
    try:
        for _ in range(3):
            MininetFabric().requirements()
    finally:
        requirements.requirements.cache_clear()
    assert lookups == ["now"]


def test_too_many_ranks(run: Run) -> None:
    with pytest.raises(
        NotOnThisMachine, match=r"^units: 65 ranks are too many for one machine \(at most 64\)$"
    ):
        run(sized(per_unit=32))


@pytest.mark.parametrize("name", ["nh1", "a-long-name1"])
def test_a_switch_that_cannot_be_a_bridge_is_refused_by_its_name(run: Run, name: str) -> None:
    """A server's NIC bridge is called nh1, and a device `a-long-name1-eth1` has more than 15 letters."""
    wire = Wire(switch=name, up_bps=10 * MBPS, down_bps=10 * MBPS)
    topology = wired(nics=[(wire,)] * 5, switches=(name,), between={}, shape=ServerShape())
    with pytest.raises(JobRefused, match=rf"^topology\.path: .*cannot call a switch '{name}'") as caught:
        run(msgspec.structs.replace(sized(), topology=topology))
    assert not isinstance(caught.value, NotOnThisMachine)  # a larger one would not help


def test_latency_is_not_emulated(run: Run) -> None:
    with pytest.raises(JobRefused, match=r"^topology\.latency_us: emulated links have no latency"):
        run(msgspec.structs.replace(sized(), topology=sized().topology.with_latency(1)))
