"""Real servers, rehearsed: torchrun in each of three network namespaces, keys, marks and strict queues."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow

PROMOTION = """\
name: promotion
topology: {kind: star, servers: 3, nic_gbps: 10}
workload:
  kind: flows
  flows:
    - {id: s2, src: h1, dst: h3, bytes: 2750000000, start_s: 0.2, stage: S2}
    - {id: s3, src: h2, dst: h3, bytes: 500000000, start_s: 0.5, stage: S3, deadline_s: 1.8}
scale: {time_dilation: 2, bytes_scale: 0.01}
policies: [fair, mfs(rho=0)]
"""
"""On links of 50 Mb/s, S2 has the link into h3 for 4.4 s of wall time. S3 is 5 MB and needs it for 0.8 s. Its
MLU is 0.31 at first, which is P5. Starved, it reaches 0.5 and is promoted to P1."""

S3_BYTES = 5_000_000
SECOND_NS = 10**9
P1, P2, P3, P5 = 1, 2, 3, 5
_START_S = 240.0


def mfs(*words: str, cwd: Path) -> "subprocess.Popen[str]":
    code = "from experiments.cli.app import main; main()"
    # A process in the background of a shell begins with Ctrl-C ignored, and so do all that it starts.
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-P", "-c", code, *words],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=(cwd / "errors").open("w"),
        text=True,
    )


class Rehearsed:
    """What a rehearsal of `PROMOTION` has left. `samples` are what each queue of each port had sent."""

    def __init__(self, directory: Path) -> None:
        (directory / "promotion.yaml").write_text(PROMOTION)
        process = mfs(
            *("cluster", "rehearse", "promotion.yaml", "--out", "out", "--queues", "queues"), cwd=directory
        )
        self.output, _ = process.communicate(timeout=600)
        self.errors = (directory / "errors").read_text()
        assert process.returncode == 0, self.output + self.errors
        self._out = directory / "out"
        self.samples: list[dict[str, Any]] = [
            json.loads(line) for line in (directory / "queues").read_text().splitlines()
        ]

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self._out / "summary.json").read_text())
        return found

    def rows(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(self._out / f"{table}.parquet").to_pylist()
        return found

    def sent(self, port: str, level: int) -> list[int]:
        return [sample["sent_bytes"][port][level] for sample in self.samples]


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    return Rehearsed(tmp_path_factory.mktemp("rehearsed"))


def test_all_flows_of_all_policies_arrive_with_the_right_bytes(rehearsed: Rehearsed) -> None:
    flows = {(row["policy"], row["id"]): row for row in rehearsed.rows("flows")}
    assert set(flows) == {(policy, flow) for policy in ("fair", "mfs(rho=0)") for flow in ("s2", "s3")}
    assert all(row["verified"] for row in flows.values())
    assert flows["fair", "s3"]["path"] == ["h2->s1", "s1->h3"]


def test_the_results_are_complete_and_say_what_was_measured(rehearsed: Rehearsed) -> None:
    summary = rehearsed.summary()
    assert summary["fabric"] == "cluster"
    assert summary["complete"]
    for policy in summary["runs"]:
        names = {check["name"] for check in policy["fidelity"]["checks"]}
        assert {"drift of clocks over the run max", "error of clock offsets max"} <= names
        assert policy["facts"]["levels"] == "IP_TOS"
        assert policy["facts"]["clock_ahead_s"] == 3000.0  # of h3, whose clock the rehearsal has set so
        assert policy["facts"]["clock_drift_us"] < 1000  # it is one clock, with different offsets


def test_no_port_has_sent_more_than_its_line_carries(rehearsed: Rehearsed) -> None:
    """The flows overlap on the port into h3, and cross it at line rate. Two packets may pass at once."""
    for policy in rehearsed.summary()["runs"]:
        [ahead] = [c for c in policy["fidelity"]["checks"] if c["name"].startswith("bytes ahead of the line")]
        assert ahead["ok"], ahead["reason"]


def test_a_promotion_moves_a_running_lane_from_one_queue_to_another(rehearsed: Rehearsed) -> None:
    """Only S3 crosses the port from h2. Under `fair`, all of it is in P3. Under `mfs` it begins in P5, and
    ends in P1."""
    decisions = [
        row["level_to"]
        for row in rehearsed.rows("decisions")
        if row["policy"] == "mfs(rho=0)" and row["flow"] == "s3"
    ]
    assert decisions == [P5, P1]
    before, after = rehearsed.sent("h2->s1", P5), rehearsed.sent("h2->s1", P1)
    assert before[-1] > 4200
    assert after[-1] > 0.5 * S3_BYTES
    assert before[-1] + after[-1] >= S3_BYTES
    promoted = next(i for i, sent in enumerate(after) if sent > 0)
    assert before[promoted - 1] > 0  # it was under way in P5
    assert before[-1] - before[promoted] <= 10 * 4214  # and nothing new goes there afterwards


def test_times_of_servers_whose_clocks_differ_fit_together(rehearsed: Rehearsed) -> None:
    """Permits come from the coordinator, arrivals from the receiver, submissions from the sender."""
    for row in rehearsed.rows("flows"):
        assert row["submit_ns"] <= row["permit_ns"] < row["finish_ns"] < 10 * SECOND_NS
        assert row["permit_ns"] - row["submit_ns"] < SECOND_NS


def test_the_promoted_flow_overtakes_the_other(rehearsed: Rehearsed) -> None:
    """S2 would have the link until 2.4 s of model time; S3 needs 0.4 s from its promotion on."""
    s2, s3 = (
        next(r for r in rehearsed.rows("flows") if (r["policy"], r["id"]) == ("mfs(rho=0)", flow))
        for flow in ("s2", "s3")
    )
    assert s3["finish_ns"] < s2["finish_ns"]


# --- ends ------------------------------------------------------------------------------------------


class UnderWay:
    """A rehearsal under `fair` whose clock has started, by default of two flows."""

    def __init__(self, directory: Path, scenario: str = "two-flows", *options: str) -> None:
        self._directory = directory
        words = ("cluster", "rehearse", scenario, "--policy", "fair", "--out", "out", *options)
        self.process = mfs(*words, cwd=directory)
        self._until(lambda: "running" in self.errors(), _START_S)
        self.all = psutil.Process(self.process.pid).children(recursive=True)

    def errors(self) -> str:
        return (self._directory / "errors").read_text()

    def rank(self, number: int) -> psutil.Process:
        [found] = [one for one in self.all if one.name() == f"rank {number}"]
        return found

    def in_namespace(self, node: str, *command: str) -> None:
        """Run a command in the network of a server (`h3`) or of its NIC (`nh3`)."""
        [holder] = {one.pid for one in self.all if one.cmdline()[-1:] == [node] and "-S" in one.cmdline()[:4]}
        subprocess.run(["nsenter", f"--target={holder}", "--net", "--", *command], check=True)

    def all_gone(self) -> bool:
        return not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in self.all)

    def ends_within(self, seconds: float) -> int:
        code = self.process.wait(seconds)
        deadline = time.monotonic() + 10.0
        while not self.all_gone():
            assert time.monotonic() < deadline, self.errors()
            time.sleep(0.1)
        return code

    def _until(self, true: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None or true(), self.errors()
            assert time.monotonic() < deadline, self.errors()
            time.sleep(0.1)


@pytest.fixture
def under_way(tmp_path: Path) -> Iterator[UnderWay]:
    made = UnderWay(tmp_path)
    yield made
    if made.process.poll() is None:
        made.process.send_signal(signal.SIGINT)
        made.process.wait(30)


def test_a_rank_that_is_killed_ends_the_run_with_its_name(under_way: UnderWay) -> None:
    os.kill(under_way.rank(1).pid, signal.SIGKILL)
    assert under_way.ends_within(60.0) == 1
    assert "rank 1 (h2/0) ended with signal 9" in under_way.errors()
    assert "of 2 done; still on their way: " in under_way.errors()


def test_ctrl_c_leaves_nothing_behind(under_way: UnderWay) -> None:
    names = {one.name() for one in under_way.all}
    assert {"rank 0", "rank 1", "rank 2"} <= names
    under_way.process.send_signal(signal.SIGINT)
    assert under_way.ends_within(30.0) == 130


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_outlives_the_command_and_nothing_is_left_in_shared_memory(
    under_way: UnderWay, number: signal.Signals
) -> None:
    """Namespaces and links end with the last process in them."""
    under_way.process.send_signal(number)
    assert under_way.ends_within(30.0) in (128 + number, -number)
    assert not list(Path("/dev/shm").glob("rehearsal*"))


SERVING = """\
extends: quickstart
name: two-units
topology: {servers: 5}
units: {prefill_units: 2, ranks_per_unit: 2, decode_ranks: 1}
workload: {requests: 16}
scale: {wall_s: 20}
policies: [fair]
"""
"""Unit p1 is on h3 and h4."""


def test_a_server_whose_data_link_is_cut_is_given_up_and_the_run_goes_on(tmp_path: Path) -> None:
    """Its agent is still heard of over the management network, and no connection closes."""
    (tmp_path / "serving.yaml").write_text(SERVING)
    run = UnderWay(tmp_path, "serving.yaml", "--elastic")
    try:
        run.in_namespace("nh3", "ip", "link", "set", "host", "down")
        assert run.ends_within(240.0) == 0
    finally:
        if run.process.poll() is None:
            run.process.send_signal(signal.SIGINT)
            run.process.wait(30)
    told = "fair: nothing has come from h3 or to it over the data network for 10 s. The policy begins again"
    assert f"{told} without unit p1" in run.errors()
    [summary] = json.loads((tmp_path / "out" / "summary.json").read_text())["runs"]
    assert summary["counts"]["completed"] == 16
    units = {row["unit"] for row in pq.read_table(tmp_path / "out" / "requests.parquet").to_pylist()}
    assert units == {"p0"}


def test_a_server_whose_data_link_is_cut_ends_the_run_with_its_name(under_way: UnderWay) -> None:
    under_way.in_namespace("nh1", "ip", "link", "set", "host", "down")
    assert under_way.ends_within(60.0) == 1
    assert "nothing has come from h1 or to it over the data network for " in under_way.errors()


def test_an_agent_that_is_stopped_ends_the_run_with_its_name(under_way: UnderWay) -> None:
    """Whoever asks it for something first, or whoever listens to it, says so."""
    agent = under_way.rank(1).parent()
    assert agent is not None
    agent.suspend()
    assert under_way.ends_within(60.0) == 1
    assert re.search(r"the agents? h2/0 (has not answered )?for 10 s", under_way.errors())
