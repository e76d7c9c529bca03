"""`mfs top` shows requests, attainment, permits, levels and ports, and fits into narrow terminals."""

import io

import pytest
from rich.console import Console

from controller.flow import Level
from experiments.live.live_file import LiveRun
from experiments.live.view import plain_line, rendered
from testbed.fabric import RunProgress
from testbed.live import FlowsNow, LiveState, PortNow, RequestsNow


def by_level(**counts: float) -> tuple[float, ...]:
    return tuple(counts.get(level.name, 0) for level in Level)


REQUESTS = RequestsNow(total=48, queued=3, prefilling=4, decoding=2, done=14, met=12, missed=3)
FLOWS = FlowsNow(
    waiting=(0, 0, 0, 0, 0, 0, 30, 0),
    changing=1,
    sending=(0, 0, 5, 0, 0, 0, 7, 0),
    permits=1234,
    latencies_wall_ms=tuple(float(n) for n in range(101)),
)
PORTS = (
    PortNow(port="leaf1->spine2.3", shares=by_level(P1=0.01, P2=0.25, P6=0.75), backlog_ns=12_300_000),
    PortNow(port="s1->h9", shares=by_level(P3=0.5), backlog_ns=0),
)


def run_of(live: LiveState | None) -> LiveRun:
    return LiveRun(
        scenario="quickstart",
        fabric="mininet",
        policies=("fair", "mfs"),
        policy="mfs",
        progress=RunProgress(phase="running", done=14, total=48, wall_s=83, live=live),
        written_s=0,
    )


WHOLE = run_of(LiveState(time_ns=1_230_000_000, requests=REQUESTS, flows=FLOWS, ports=PORTS, ports_in_all=20))


def shown(run: LiveRun, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(rendered(run))
    return [line.rstrip() for line in out.getvalue().splitlines()]


@pytest.mark.parametrize("width", [50, 80])
def test_every_number_of_a_run_has_its_place_and_no_line_is_broken(width: int) -> None:
    assert shown(WHOLE, width) == [
        "quickstart on mininet: mfs, policy 2 of 2",
        "running 14/48, 83 s, model time 1.23 s",
        "",
        "requests  3 queued, 4 in prefill, 2 to decode,",
        "          14 done, 25 to come",
        "SLO       12 of 15 met (80.0 %)",
        "permits   1234; last p50 50.0 ms, p99 99.0 ms",
        "",
        "level    flows sending waiting for a lane",
        "P2                   5                  0",
        "P6                   7                 30",
        "all                 12                 30",
        "changing             1",
        "",
        "port            busy        backlog by level",
        "leaf1->spine2.3 101% ██████ 12.3 ms P6 75% P2 25%",
        "s1->h9           50% ███            P3 50%",
        "the busiest 2 of 20 ports",
    ]


def test_what_is_not_known_is_not_shown() -> None:
    assert shown(run_of(None), 80) == ["quickstart on mininet: mfs, policy 2 of 2", "running 14/48, 83 s"]
    simulated = run_of(LiveState(time_ns=0, requests=REQUESTS))
    assert shown(simulated, 80)[-1] == "SLO       12 of 15 met (80.0 %)"


def test_before_a_request_is_decided_nothing_is_said_of_the_slo() -> None:
    early = RequestsNow(total=48, queued=1, prefilling=0, decoding=0, done=0, met=0, missed=0)
    assert shown(run_of(LiveState(time_ns=0, requests=early)), 80)[-1] == "SLO       none decided yet"


def test_without_a_terminal_it_is_one_line() -> None:
    assert plain_line(WHOLE) == (
        "mfs: running 14/48, 83 s, model time 1.23 s; 3 queued, 4 in prefill, 2 to decode; SLO 12 of 15 met"
        " (80.0 %); 12 flows sending; permits 1234; last p50 50.0 ms, p99 99.0 ms; busiest port"
        " leaf1->spine2.3 101%"
    )
