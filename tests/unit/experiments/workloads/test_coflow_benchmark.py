"""Coflows in the format of the coflow benchmark: the flows of a line, and completion times.

A NIC carries one MB (2**20 bytes) in a millisecond, so the times below can be worked out on paper.
"""

import random
import subprocess
from pathlib import Path

import pytest
from rich.console import Console

from controller.flow import Stage
from experiments.errors import UserError
from experiments.resolve.jobs import Resolved, resolve
from experiments.results.measures import flow_measures
from experiments.results.summary import summarise
from experiments.results.terminal import coflows_table, flows_table
from experiments.run.run import run_scenario
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import MODEL_SCALE, MicroFlow
from testbed.record import RunRecord

MB = 2**20
MS = 1_000_000


def trace(folder: Path, *lines: str) -> Path:
    path = folder / "trace.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


def resolved(path: Path, *settings: str) -> Resolved:
    texts = [f"workload.path={path}", "fabric=sim", *settings]
    return resolve(load_scenario("coflow-small", [override(text) for text in texts]))


def flows(path: Path, *settings: str) -> tuple[MicroFlow, ...]:
    return resolved(path, *settings).jobs[0].flows


def played(path: Path, policy: str, *settings: str) -> RunRecord:
    job = resolved(path, f'policies=["{policy}"]', *settings).jobs[0]
    return FABRICS["sim"]().run(job, lambda progress: None)


def ccts_ms(record: RunRecord) -> dict[str, float]:
    return {name: took / MS for name, took in flow_measures(record.flows, units={}).coflow_ns.items()}


# --- a line -----------------------------------------------------------------------------------------


def test_every_mapper_sends_every_reducer_an_even_share(tmp_path: Path) -> None:
    """Racks 0 and 2 send 3 MB each to rack 1 (6 MB) and 2 MB each to rack 3 (4 MB). Rack i is h(i + 1)."""
    made = flows(trace(tmp_path, "4 1", "7 0 2 0 2 2 1:6.0 3:4.0"))
    assert [(f.transfer.id, f.transfer.src, f.transfer.dst, f.transfer.size_bytes / MB) for f in made] == [
        ("c7.h1-h2", 0, 1, 3),
        ("c7.h3-h2", 2, 1, 3),
        ("c7.h1-h4", 0, 3, 2),
        ("c7.h3-h4", 2, 3, 2),
    ]
    assert {(f.transfer.coflow, f.transfer.stage, f.start_ns) for f in made} == {("c7", Stage.P2D, 0)}


def test_a_size_that_does_not_divide_loses_no_byte(tmp_path: Path) -> None:
    """2**20 = 3 * 349,525 + 1."""
    made = flows(trace(tmp_path, "4 1", "1 0 3 0 1 2 1 3:1.0"))
    assert [f.transfer.size_bytes for f in made] == [349_526, 349_525, 349_525]


def test_what_stays_in_its_rack_or_is_empty_is_left_out_and_told(tmp_path: Path) -> None:
    """c1: rack 0 sends 2 MB each to itself and to rack 1. c2 stays inside rack 2. c3 is empty."""
    path = trace(tmp_path, "3 3", "1 0 1 0 2 0:2.0 1:2.0", "2 0 1 2 1 2:5.0", "3 5 1 0 1 1:0.0")
    outcome = resolved(path)
    assert [f.transfer.id for f in outcome.jobs[0].flows] == ["c1.h1-h2"]
    assert outcome.notes == (
        "coflows: 1, flows: 1, between racks: 0.002097 GB",
        "left out: 0.00734 GB that stay inside a rack",
        "left out: coflows without anything for another rack: 2",
    )


def test_the_first_coflow_taken_arrives_at_zero_and_time_is_stretched(tmp_path: Path) -> None:
    lines = [f"{i} {10 * i * i} 1 0 1 1:1.0" for i in range(5)]
    made = flows(
        trace(tmp_path, "2 5", *lines), "workload.skip=1", "workload.coflows=3", "workload.time_scale=0.5"
    )
    assert [(f.transfer.coflow, f.start_ns) for f in made] == [("c1", 0), ("c2", 15 * MS), ("c3", 40 * MS)]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("1 0", "ends after 2 values; at least 3"),
        ("1 0 2 0 1", "ends after 5 values; at least 6"),
        ("1 0 1 0 2 1:1.0", "ends after 6 values; at least 7"),
        ("1 0 1 0 1 1:1.0 2:1.0", "7 values, but 1 mappers and 1 reducers make 6"),
        ("one 0 1 0 1 1:1.0", "coflow id is 'one', not a whole number"),
        ("1 soon 1 0 1 1:1.0", "arrival is 'soon', not a number"),
        ("1 -4 1 0 1 1:1.0", "arrival is -4; allowed is 0 .."),
        ("1 0 0 1 1:1.0", "number of mappers is 0; allowed is 1 .. 3"),
        ("1 0 1 3 1 1:1.0", "rack of a mapper is 3; allowed is 0 .. 2"),
        ("1 0 1 0 1 3:1.0", "rack of a reducer is 3; allowed is 0 .. 2"),
        ("1 0 2 0 0 1 1:1.0", "rack 0 is named twice among the mappers"),
        ("1 0 1 0 2 1:1.0 1:2.0", "rack 1 is named twice among the reducers"),
        ("1 0 1 0 1 1", "reducer '1'; expected rack:MB"),
        ("1 0 1 0 1 1:much", "MB of a reducer is 'much', not a number"),
        ("1 0 1 0 1 1:nan", "MB of a reducer is nan; allowed is 0 .."),
        ("0 8 1 0 1 1:1.0", "coflow 0 is listed twice"),
        ("1 6 1 0 1 1:1.0", "arrives before the line above"),
    ],
)
def test_a_line_that_is_not_right_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = trace(tmp_path, "3 2", "0 7 1 0 1 1:1.0", line)
    with pytest.raises(UserError) as refusal:
        flows(path)
    # Most other lines arrive too early as well, but errors inside the line are reported first.
    assert str(refusal.value).startswith(f"{path}, line 3: ")
    assert told in str(refusal.value)


def test_the_message_on_unsorted_lines_says_how_to_sort_them(tmp_path: Path) -> None:
    """Coflows of one moment stay in the order of the file."""
    folder = tmp_path / "a folder"
    folder.mkdir()
    path = trace(folder, "3 3", "5 80 1 0 1 1:1.0", "9 7 1 0 1 1:1.0", "2 7 1 0 1 1:1.0")
    with pytest.raises(UserError) as refusal:
        flows(path)

    _, _, command = str(refusal.value).partition("To sort it: ")
    subprocess.run(command, shell=True, check=True, cwd=tmp_path)

    assert [flow.transfer.coflow for flow in flows(tmp_path / "SORTED")] == ["c9", "c2", "c5"]


@pytest.mark.parametrize(
    ("lines", "settings", "told"),
    [
        (["3", "1 0 1 0 1 1:1.0"], [], "line 1: '3'; expected two numbers, racks and coflows"),
        (["3 2", "1 0 1 0 1 1:1.0"], [], "line 1: 2 coflows are announced, but the file has 1"),
        (
            ["7 1", "1 0 1 0 1 1:1.0"],
            [],
            "line 1: 7 racks, and a rack is a server: the topology has 6 (topology.s",
        ),
        (
            ["3 1", "1 0 1 0 1 1:1.0"],
            ["workload.coflows=2"],
            "workload.coflows asks for 2, but the file has 1",
        ),
        (
            ["3 1", "1 0 1 0 1 1:1.0"],
            ["workload.skip=1"],
            "workload.skip leaves out 1 coflows, but the file has 1",
        ),
        (["3 1", "1 0 1 0 1 0:1.0"], [], "nothing to send"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    tmp_path: Path, lines: list[str], settings: list[str], told: str
) -> None:
    with pytest.raises(UserError, match=r"trace\.txt") as refusal:
        flows(trace(tmp_path, *lines), *settings)
    assert told in str(refusal.value)


@pytest.mark.parametrize(
    ("scenario", "setting", "told"),
    [
        ("coflow-small", "workload.path=null", "workload.kind: coflows needs workload.path"),
        ("coflow-small", "workload.rate=3", "workload.rate: is for requests"),
        ("quickstart", "workload.coflows=3", "workload.coflows: applies to kind coflows only"),
        ("two-flows", "workload.coflows=3", "workload.coflows: applies to kind coflows only"),
    ],
)
def test_keys_that_do_not_go_with_coflows_are_refused(scenario: str, setting: str, told: str) -> None:
    with pytest.raises(UserError) as refusal:
        load_scenario(scenario, [override(setting)])
    assert told in str(refusal.value)


def test_a_trace_of_coflows_beside_a_generated_kind_is_told_what_it_needs(tmp_path: Path) -> None:
    path = trace(tmp_path, "3 1", "1 0 1 0 1 1:1.0")
    with pytest.raises(UserError, match=r"workload\.kind: coflows"):
        load_scenario("quickstart", [override(f"workload.path={path}")])


# --- completion times -------------------------------------------------------------------------------

ONE_UPLINK = ("3 2", "1 0 1 0 1 1:4.0", "2 1 1 0 1 2:2.0")
"""Rack 0 sends c1 (4 MB) from 0 ms and c2 (2 MB) from 1 ms."""


@pytest.mark.parametrize(
    ("policy", "order", "first_ms", "second_ms"),
    [
        # 3 and 2 MB are left at 1 ms, and each gets half the uplink: c2 ends at 5, c1 at 6.
        ("fair", "exact", 6, 4),
        # Gamma at 1 ms is 3 for c1 and 2 for c2: c2 ends at 3, c1 at 6.
        ("sebf", "exact", 6, 2),
        # Both are on P1, first come, first served: c1 ends at 4, c2 at 6.
        ("aalo", "exact", 4, 5),
        # A coflow that has sent 1 MB is on P2. c2 is alone on P1 from 1 to 2. Then c1, which came first,
        # sends its other 3 MB until 5, and c2 its last MB until 6.
        ("aalo(first_bytes=1048576)", "exact", 5, 5),
        # In levels, the two share P2 from 2 ms on: c2 ends its last MB at 4, c1 its 3 MB at 6.
        ("aalo(first_bytes=1048576)", "levels", 6, 3),
        # No coflow has ended yet to learn from, so both are in the middle, as under fair sharing.
        ("sebf", "levels", 6, 4),
    ],
)
def test_two_coflows_on_one_uplink(
    tmp_path: Path, policy: str, order: str, first_ms: float, second_ms: float
) -> None:
    record = played(trace(tmp_path, *ONE_UPLINK), policy, f"simulation.order={order}")
    assert ccts_ms(record) == {"c1": first_ms, "c2": second_ms}


@pytest.mark.parametrize(("policy", "narrow_ms"), [("fair", 2), ("sebf", 1)])
def test_a_narrow_coflow_before_an_incast(tmp_path: Path, policy: str, narrow_ms: float) -> None:
    """c1: racks 0 and 1 send 2 MB each to rack 2, whose downlink needs 4 ms. c2: rack 0 sends rack 1 1 MB.

    fair: all three flows run at half rate, and c2 ends at 2. The downlink is never idle. sebf: Gamma is 4
    and 1, so rack 0 sends c2 first, while rack 1 has the downlink to itself.
    """
    path = trace(tmp_path, "3 2", "1 0 2 0 1 1 2:4.0", "2 0 1 0 1 1:1.0")
    record = played(path, policy, "simulation.order=exact")
    assert ccts_ms(record) == {"c1": 4, "c2": narrow_ms}


@pytest.mark.parametrize(("policy", "mean_ms"), [("fair", 3), ("sebf", 2)])
def test_all_flows_of_a_coflow_go_together(tmp_path: Path, policy: str, mean_ms: float) -> None:
    """c1: rack 0 sends 1 MB to each of racks 1 and 2. c2: rack 0 sends 1 MB to rack 3.

    sebf: Gamma is 2 and 1, so c2 ends at 1 and c1 at 3. fair: each flow gets a third, and all end at 3.
    """
    path = trace(tmp_path, "4 2", "1 0 1 0 2 1:1.0 2:1.0", "2 0 1 0 1 3:1.0")
    times = ccts_ms(played(path, policy, "simulation.order=exact"))
    assert sum(times.values()) / 2 == mean_ms


def shuffles(seed: int) -> list[str]:
    """Make forty shuffles between ten racks. Most are small and narrow; a few wide ones have most bytes."""
    draw = random.Random(seed)
    lines, arrival_ms = ["10 40"], 0
    for number in range(40):
        widest, middle_mb = (3, 2) if draw.random() < 0.7 else (7, 16)
        mappers = sorted(draw.sample(range(10), draw.randint(1, widest)))
        reducers = sorted(draw.sample(range(10), draw.randint(1, widest)))
        sizes = [f"{rack}:{max(1, round(draw.lognormvariate(0, 1) * middle_mb))}.0" for rack in reducers]
        lines.append(" ".join(map(str, [number, arrival_ms, len(mappers), *mappers, len(reducers), *sizes])))
        arrival_ms += round(draw.expovariate(1 / 9))
    return lines


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_smallest_bottleneck_first_beats_fair_sharing_on_the_mean(tmp_path: Path, seed: int) -> None:
    path = trace(tmp_path, *shuffles(seed))

    def mean_ms(policy: str) -> float:
        record = played(path, policy, "simulation.order=exact", "topology.servers=10")
        assert record.fidelity.faithful
        times = ccts_ms(record)
        return sum(times.values()) / len(times)

    assert mean_ms("sebf") < 0.9 * mean_ms("fair")


def test_the_summary_tells_how_long_coflows_took_and_not_their_flows(tmp_path: Path) -> None:
    """The coflows take 6 and 4 ms: mean and median 5, p90 = 4 + 0.9 * 2, p99 = 4 + 0.99 * 2."""
    record = played(trace(tmp_path, *ONE_UPLINK), "fair", "simulation.order=exact")
    summary = summarise(scenario="s", fabric="sim", seed=1, scale=MODEL_SCALE, records=[record])
    run = summary["runs"][0]
    assert run["coflows"] == 2
    assert run["coflow_completion_s"] == {
        "mean": pytest.approx(0.005),
        "p50": pytest.approx(0.005),
        "p90": pytest.approx(0.0058),
        "p99": pytest.approx(0.00598),
    }
    assert "flows" not in run
    assert flows_table(summary) is None
    table = coflows_table(summary)
    assert table is not None
    console = Console(width=100)
    with console.capture() as printed:
        console.print(table)
    row = printed.get().splitlines()[-1]
    assert [cell.strip() for cell in row.split("  ") if cell.strip()] == [
        "fair", "2", "2", "5.00 ms", "5.00 ms", "5.80 ms", "5.98 ms", "6.00 ms", "yes"
    ]  # fmt: skip


def test_the_report_shows_the_distribution_of_completion_times(tmp_path: Path) -> None:
    path = trace(tmp_path, *ONE_UPLINK)
    scenario = load_scenario("coflow-small", [override(f"workload.path={path}"), override("policies=[fair]")])
    directory, _ = run_scenario(
        scenario, fabric=FABRICS["sim"](), out=tmp_path / "run", progress=lambda policy, state: None
    )
    page = (directory / "report.html").read_text()
    assert "<h2>Coflows</h2>" in page
    assert "Distribution of coflow completion time" in page
    assert "<h2>Flows</h2>" not in page
