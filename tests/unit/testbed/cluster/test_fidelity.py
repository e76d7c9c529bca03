"""When a run on real servers can be trusted."""

from typing import Any

import pytest
from serving_world import job, placed

from controller.flow import Decision, Level
from controller.protocol import Logged
from controller.pulse import Pause
from testbed.cluster.clocks import Drift, Reading
from testbed.cluster.fidelity import Servers, judge, lines_of, payload_share
from testbed.coordinator.checks import at_least
from testbed.coordinator.gathered import Gathered
from testbed.coordinator.lapses import WallClock
from testbed.coordinator.ranks import ProbeResult
from testbed.record import Fidelity
from testbed.serving.yardsticks import Yardstick, Yardsticks

MS = 1_000_000
LONE = Yardstick(short="a lone flow", name="the median flow alone", seconds=1.0)


def reading(ahead_ns: int, error_ns: int = 0) -> Reading:
    return Reading(wall_ns=0, ahead_ns=ahead_ns, error_ns=error_ns)


def decided(*levels: Level) -> Gathered:
    made = [Decision(time_ns=0, flow="f", level_from=None, level_to=level, reason="") for level in levels]
    gathered = Gathered(job(*placed()))
    gathered.take_logged(Logged(decisions=tuple(made), paths=(), ended=()))
    return gathered


def probe(share: float) -> ProbeResult:
    """A link on which `share` of what it should carry arrives as payload."""
    return ProbeResult(src="h1", dst="h2", delivered_bps=share * 1e9 * payload_share(1500), nominal_bps=1e9)


def judged(**changes: Any) -> Fidelity:
    calm: dict[str, Any] = {
        "probes": [probe(1.0)],
        "servers": Servers(idle={"a": 0.5, "b": 0.9}, segments={"a": (100, 1), "b": (100, 0)}, mtu=1500),
        "pauses": {"rank 0": Pause(begin_wall_ns=0, wall_ns=MS)},
        "clock": WallClock(zero_wall_ns=0, time_dilation=1.0),
        "drifts": {"a/0": Drift(before=reading(5, 1000), after=reading(900 * 1000, 1000))},
        "gathered": decided(Level.P1, Level.P3),
        "enforced": True,
        "yardsticks": Yardsticks(transfer=None, compute=None, whole=LONE),
    }
    return judge(**(calm | changes))


def wrong(found: Fidelity) -> list[str]:
    assert found.faithful == all(check.ok for check in found.checks)
    return [check.name for check in found.checks if not check.ok]


def test_a_calm_run_is_faithful() -> None:
    assert wrong(judged()) == []


def test_the_payload_of_a_packet_of_1500_bytes_is_95_6_percent_of_it() -> None:
    """1448 of 1514 bytes."""
    assert payload_share(1500) == pytest.approx(0.9564, abs=1e-4)


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (0.91, []),
        (0.89, ["delivered rate, all links probed at once"]),
        (1.09, []),
        (1.2, ["fastest link, all links probed at once"]),
    ],
)
def test_links_have_to_be_as_the_scenario_says(share: float, told: list[str]) -> None:
    assert wrong(judged(probes=[probe(1.0), probe(share)])) == told


def test_the_busiest_server_is_named() -> None:
    servers = Servers(idle={"a": 0.5, "b": 0.01}, segments={}, mtu=1500)
    found = judged(servers=servers)
    assert wrong(found) == ["CPU headroom of the busiest server"]
    [check] = [check for check in found.checks if not check.ok]
    assert check.advice.startswith("b: ")


def test_a_clock_that_drifts_by_more_than_a_millisecond_spoils_the_run() -> None:
    drifts = {
        "a/0": Drift(before=reading(0), after=reading(0)),
        "b/0": Drift(before=reading(0), after=reading(-1_100_000)),
    }
    found = judged(drifts=drifts)
    assert wrong(found) == ["drift of clocks over the run max"]
    [check] = [check for check in found.checks if not check.ok]
    assert check.value == 1.1
    assert check.advice.startswith("b/0: ")


def test_a_clock_that_is_not_known_well_spoils_the_run() -> None:
    drifts = {"a/0": Drift(before=reading(0, 1_200_000), after=reading(0, 10))}
    assert wrong(judged(drifts=drifts)) == ["error of clock offsets max"]


@pytest.mark.parametrize(
    ("levels", "enforced", "told"),
    [
        ((Level.P1, Level.P3), True, []),
        ((Level.P3, Level.P3), False, []),
        ((Level.P1, Level.P3), False, ["levels that were decided and not put in force"]),
    ],
)
def test_levels_that_nobody_marks_spoil_a_run_that_has_several(
    levels: tuple[Level, ...], enforced: bool, told: list[str]
) -> None:
    assert wrong(judged(gathered=decided(*levels), enforced=enforced)) == told


def test_a_wrong_token_spoils_the_run() -> None:
    token = at_least("first tokens of the whole model", 0.9, 1.0, "of requests", "")
    assert wrong(judged(more=[token])) == ["first tokens of the whole model"]


def test_lost_packets_and_long_pauses_spoil_a_run() -> None:
    servers = Servers(idle={"a": 0.5}, segments={"a": (100, 3), "b": (100, 4)}, mtu=1500)
    assert wrong(judged(servers=servers)) == ["TCP retransmits"]
    pauses = {"rank 1 (b/0)": Pause(begin_wall_ns=0, wall_ns=210 * MS)}  # a fifth of a lone flow is 200 ms
    assert wrong(judged(pauses=pauses)) == ["longest pause of a process"]


def test_ports_may_be_as_fast_as_the_probes_found_and_ahead_by_two_packets() -> None:
    made = job(*placed())
    known = {"a/0": Drift(before=reading(0), after=reading(0))}
    lines = lines_of(made, [probe(0.9), probe(1.05)], known, mtu=1500)
    link = made.topology.links[0]
    assert lines[link.id].bps == pytest.approx(1.05 * link.bps)
    assert lines[link.id].besides_bytes * made.scale.bytes_scale == pytest.approx(2 * 1514)
    slow = lines_of(made, [probe(0.9)], known, mtu=1500)
    assert slow[link.id].bps == link.bps


def test_clocks_that_are_not_known_exactly_let_ports_be_further_ahead() -> None:
    """Each end may be wrong by 3 ms, in which the line carries 6 ms worth of bytes."""
    made = job(*placed())
    exact = {"a/0": Drift(before=reading(0), after=reading(0))}
    vague = {"a/0": Drift(before=reading(0, MS), after=reading(0, 3 * MS))}
    link = made.topology.links[0]
    more = lines_of(made, [], vague, 1500)[link.id].besides_bytes
    more -= lines_of(made, [], exact, 1500)[link.id].besides_bytes
    assert more * made.scale.bytes_scale == pytest.approx(made.scale.wire_bps(link.bps) / 8 * 0.006)
