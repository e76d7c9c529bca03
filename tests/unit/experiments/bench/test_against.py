"""`mfs bench sim --against`: what the tools answer, and what is made of it."""

import io
import json
import sys
from collections.abc import Callable

import msgspec
import pytest
from rich.console import Console

from experiments.bench import against, flow_sets
from experiments.bench.against import (
    AGAINST,
    LeftOut,
    Tool,
    ToolRun,
    as_json,
    chosen_tools,
    compare,
    difference,
    simgrid_missing,
)
from experiments.bench.against_table import render
from experiments.bench.flow_sets import PACKET_BYTES, FlowSet, SetCase, SetFlow, draw
from experiments.bench.ns_py import replay_ns_py
from experiments.bench.replay import Replay, run_fluid
from experiments.cli import app as cli
from experiments.errors import UserError
from testbed.fabric import RunFailed

LAZY, FULL = (tool.replay for tool in AGAINST["simgrid"])
FLUIDS = pytest.mark.parametrize(
    "replay",
    [
        run_fluid,
        *(
            pytest.param(one, marks=pytest.mark.skipif(bool(simgrid_missing()), reason=simgrid_missing()))
            for one in (LAZY, FULL)
        ),
    ],
    ids=["ours", "SimGrid lazy", "SimGrid full"],
)
SIMGRIDS = pytest.mark.skipif(bool(simgrid_missing()), reason=simgrid_missing())

BYTE_PER_NS = 8_000_000_000
SMALL = SetCase(name="small", about="a small one", flows=200, load=0.8, exponents=(5.0, 9.0), hosts=8)
TWO_TIERS = SetCase(
    name="two tiers", about="", flows=200, load=0.4, exponents=(5.0, 9.0), hosts=8, leaves=4, spines=2
)


def flow(path: str, size_bytes: int, start_ns: int = 0) -> SetFlow:
    """A flow over the links `path`, separated by blanks: from the host of the first to that of the last."""
    links = path.split()
    return SetFlow(src=links[0], dst=links[-1], start_ns=start_ns, size_bytes=size_bytes, path=tuple(links))


def links_of(*flows: SetFlow, **bps: int) -> FlowSet:
    """`flows` over links of 1 B/ns, but for those in `bps`."""
    names = {link for one in flows for link in one.path}
    return FlowSet(bps=dict.fromkeys(sorted(names), BYTE_PER_NS) | bps, flows=flows)


# --- hand-worked max-min fairness -------------------------------------------------------------------


@FLUIDS
def test_what_a_bottleneck_leaves_goes_to_others(replay: Callable[[FlowSet], Replay]) -> None:
    """Three flows share `d2`, so each has 1/3 B/ns. The first one's peer on `u0` gets the other 2/3, and
    ends at 150,000. At 300,000, two of the three end, and the last has 100,000 B left for `d2` alone."""
    told = replay(
        links_of(
            flow("u0 d1", 100_000), flow("u0 d2", 100_000), flow("u3 d2", 100_000), flow("u4 d2", 200_000)
        )
    )
    assert told.finish_ns == pytest.approx([150_000, 300_000, 300_000, 400_000], abs=2)


@FLUIDS
def test_a_flow_that_starts_later_takes_its_share_from_then_on(replay: Callable[[FlowSet], Replay]) -> None:
    """The first is alone until 50,000, shares until the second ends at 150,000, and is alone again."""
    told = replay(links_of(flow("u0 d1", 200_000), flow("u2 d1", 50_000, 50_000)))
    assert told.finish_ns == pytest.approx([250_000, 150_000], abs=2)


@FLUIDS
def test_links_in_the_middle_of_a_path_are_shared_like_any_other(
    replay: Callable[[FlowSet], Replay],
) -> None:
    """`core` carries 0.5 B/ns for two flows, so each has 0.25, and the third has 0.75 of `d2`."""
    told = replay(
        links_of(
            flow("u0 core d1", 50_000),
            flow("u2 core d2", 50_000),
            flow("u3 d2", 150_000),
            core=BYTE_PER_NS // 2,
        )
    )
    assert told.finish_ns == pytest.approx([200_000, 200_000, 200_000], abs=2)


@SIMGRIDS
@pytest.mark.parametrize("case", [SMALL, TWO_TIERS], ids=lambda case: case.name)
@pytest.mark.parametrize("replay", [LAZY, FULL], ids=["lazy", "full"])
def test_simgrid_ends_random_flows_when_we_do(replay: Callable[[FlowSet], Replay], case: SetCase) -> None:
    """Links are 1,000 times slower than the case's, so that our rounding up of ends to whole nanoseconds
    hardly counts: the shortest flow takes 3.84 ms."""
    flow_set = slowed(draw(case, 1), 1_000)
    gap = difference(flow_set, run_fluid(flow_set).finish_ns, replay(flow_set).finish_ns)
    assert gap.largest < 1e-5


def slowed(flow_set: FlowSet, times: int) -> FlowSet:
    """The same flows with all times multiplied by `times`."""
    return FlowSet(
        bps={port: bps // times for port, bps in flow_set.bps.items()},
        flows=tuple(msgspec.structs.replace(one, start_ns=one.start_ns * times) for one in flow_set.flows),
    )


# --- ns.py ------------------------------------------------------------------------------------------


def test_packets_of_two_flows_take_turns_at_a_downlink() -> None:
    """10 packets each, 1,500 ns a packet and link. Both arrive at full rate, and the downlink sends 20 from
    1,500 on: the fluid ends both at 20 packet times, ns.py one at 20 and one at 21."""
    flow_set = links_of(flow("u0 d2", 10 * PACKET_BYTES), flow("u1 d2", 10 * PACKET_BYTES))
    assert run_fluid(flow_set).finish_ns == [20 * PACKET_BYTES] * 2
    assert sorted(replay_ns_py(flow_set).finish_ns) == [20 * PACKET_BYTES, 21 * PACKET_BYTES]


def test_in_an_incast_ns_py_is_late_by_a_packet_for_each_flow_at_most() -> None:
    """A round of the downlink has a packet of each flow there, and the switch stores one packet."""
    case = SetCase(name="", about="", flows=60, load=0.9, exponents=(5.0, 7.0), hosts=62, receivers=2)
    flow_set = draw(case, 1)
    ours, theirs = run_fluid(flow_set).finish_ns, replay_ns_py(flow_set).finish_ns
    packet_ns = PACKET_BYTES * 8e9 / flow_sets.NIC_BPS
    for one, here, there in zip(flow_set.flows, ours, theirs, strict=True):
        peers = sum(
            other.dst == one.dst and other.start_ns < here and end_ns > one.start_ns
            for other, end_ns in zip(flow_set.flows, ours, strict=True)
        )
        assert abs(there - here) <= (peers + 1) * packet_ns


def test_without_flow_control_ns_py_keeps_an_uplink_busy_for_a_flow_that_waits() -> None:
    """This is why ns.py is no judge of flows that share both ends. The second flow shares `u0` with the
    first, and `d2`, which has half the rate, with the third. Fluid: the second has 0.25 B/ns and leaves
    0.75 to the first, whose 150 packets end at 200 packet times. ns.py: both have half of `u0`, and the
    first ends at about 300."""
    flow_set = links_of(
        flow("u0 d1", 150 * PACKET_BYTES),
        flow("u0 d2", 150 * PACKET_BYTES),
        flow("u3 d2", 150 * PACKET_BYTES),
        d2=BYTE_PER_NS // 2,
    )
    assert run_fluid(flow_set).finish_ns[0] == 200 * PACKET_BYTES
    assert replay_ns_py(flow_set).finish_ns[0] == pytest.approx(300 * PACKET_BYTES, abs=2 * PACKET_BYTES)


# --- what is told -----------------------------------------------------------------------------------


def fake(name: str, cpu_s: list[float], late_ns: float = 0.0, **limits: float) -> Tool:
    """A tool that takes `cpu_s` in its first, second ... run, and ends every flow after 1,000 ns."""
    times = iter(cpu_s)

    def replay(flow_set: FlowSet) -> Replay:
        ends = [one.start_ns + 1_000.0 + late_ns for one in flow_set.flows]
        return Replay(version="1", finish_ns=ends, wall_s=9.0, cpu_s=next(times), peak_bytes=2**20)

    return Tool(name=name, replay=replay, **limits)


def test_the_run_with_the_median_time_counts_and_speeds_are_against_ours() -> None:
    """200 flows in 2 s of ours and 5 s of the other, which ends 10 ns late: 1 % of 1,000."""
    tools = [fake("ours", [2.0, 9.0, 1.0]), fake("other", [4.0, 5.0, 6.0], late_ns=10.0)]
    ours, other = compare([SMALL], tools, seed=1, rounds=3)
    assert isinstance(ours, ToolRun)
    assert isinstance(other, ToolRun)
    assert (ours.cpu_s, ours.flows_per_s, ours.events_per_s) == (2.0, 100.0, 200.0)
    assert (other.cpu_s, other.our_speed) == (5.0, 2.5)
    assert ours.difference is None
    assert other.difference is not None
    assert other.difference.median == pytest.approx(0.01)
    assert other.difference.largest == pytest.approx(0.01)


def test_a_difference_is_a_share_of_our_duration() -> None:
    """100 flows of 1 to 100 us, all 1 us late: 1 to 1/100, of which the 50th smallest is 1/51."""
    flow_set = links_of(*(flow("u d", 1, 7) for _ in range(100)))
    ours = [7 + 1_000.0 * (number + 1) for number in range(100)]
    gap = difference(flow_set, ours, [end_ns + 1_000 for end_ns in ours])
    assert gap.median == pytest.approx(1 / 51)
    assert gap.p99 == pytest.approx(1 / 2)
    assert gap.largest == pytest.approx(1)


def test_a_set_that_is_too_large_for_a_tool_is_told() -> None:
    hops = draw(SMALL, 1).packet_hops
    tools = [fake("ours", [1.0]), fake("packets", [1.0], most_packet_hops=hops - 1)]
    told = list(compare([SMALL], tools, seed=1, rounds=1))
    assert [type(one) for one in told] == [ToolRun, LeftOut]
    console = Console(width=200, file=io.StringIO())
    console.print(render(told))
    assert f"small: packets left out: simulates packets, and the links would have to send {hops:,}" in (
        console.file.getvalue()  # type: ignore[attr-defined]
    )
    (left_out,) = as_json(told, seed=1, complete=True)["left_out"]
    assert left_out["tool"] == "packets"


def test_a_tool_that_does_not_end_every_flow_is_not_believed() -> None:
    tools = [fake("ours", [1.0]), fake("broken", [1.0], late_ns=-1_001.0)]
    with pytest.raises(RunFailed, match="broken ended 0 of the 200 flows of small"):
        list(compare([SMALL], tools, seed=1, rounds=1))


# --- the command ------------------------------------------------------------------------------------


def ended(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    monkeypatch.setattr(sys, "argv", ["mfs", "bench", "sim", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code


def test_the_command_prints_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(flow_sets, "SETS", (SMALL,))
    monkeypatch.setattr(against, "AGAINST", {"other": (fake("other", [1.0] * 3),)})
    monkeypatch.setattr(against, "_MISSING", {"other": lambda: ""})
    assert ended(monkeypatch, "--against", "other", "--seed", "3", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["seed"], told["complete"], told["left_out"]) == (3, True, [])
    assert [(run["case"], run["tool"]) for run in told["runs"]] == [("small", "ours"), ("small", "other")]
    assert told["runs"][0]["active"] > 1
    assert told["runs"][1]["difference"]["largest"] > 0


def test_tools_that_are_not_installed_are_all_named_with_how_to_install_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(against, "SYSTEM_PYTHON", "/no/python3")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert ended(monkeypatch, "--against", "simgrid", "--against", "ns.py") == 2
    told = capsys.readouterr()
    assert "apt-get install python3-simgrid" in told.err
    assert "pip install ns.py" in told.err
    assert told.out == ""


def test_policies_and_settings_are_refused_beside_another_tool(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ended(monkeypatch, "--against", "simgrid", "--policy", "mfs") == 2
    assert "--against runs bare flows" in capsys.readouterr().err


def test_an_unknown_tool_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match=r"--against ns-3: there is no such tool \(tools: simgrid, ns\.py\)"):
        chosen_tools(["ns-3"])
