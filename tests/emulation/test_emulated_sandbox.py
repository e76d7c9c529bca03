"""A run leaves nothing behind, however it ends, and runs can take place side by side."""

import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from footprint import Machine, MarkedRun, nothing_left

SCENARIO = """\
name: sandbox
topology: {{kind: star, servers: 3, nic_gbps: 1}}
workload:
  kind: flows
  flows:
    - {{id: a, src: h1, dst: h3, bytes: {size_bytes}, start_s: 0, stage: S3}}
scale: {{time_dilation: 1, bytes_scale: 0.02}}  # 1 Gb/s becomes 20 Mb/s
policies: [fair]
"""
SHORT, LONG = 12_500_000, 3_750_000_000  # 0.1 s and 30 s

CALLER_WITH_A_BUG = """\
import sys

from experiments.run.run import run_scenario
from experiments.scenario.reading import load_scenario
from testbed.fabrics import FABRICS


def progress(policy, state):
    print(f"{policy}: {state.phase}", file=sys.stderr, flush=True)
    if state.phase == "running":
        raise RuntimeError("a bug in the caller")


run_scenario(load_scenario("scenario.yaml", []), fabric=FABRICS["mininet"](), out=None, progress=progress)
"""


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory outside /tmp, because the runs of these tests see an empty /tmp."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="mfs-test-") as directory:
        yield Path(directory)


def _start(home: Path, size_bytes: int) -> MarkedRun:
    home.mkdir(exist_ok=True)
    (home / "scenario.yaml").write_text(SCENARIO.format(size_bytes=size_bytes))
    return MarkedRun(home, "run", "scenario.yaml")


SIGNALS = pytest.mark.parametrize(
    ("how", "exit_code"),
    [
        pytest.param(signal.SIGINT, 130, id="Ctrl-C"),
        pytest.param(signal.SIGTERM, 143, id="SIGTERM"),
        pytest.param(signal.SIGKILL, -signal.SIGKILL, id="SIGKILL"),
    ],
)


@SIGNALS
def test_after_a_signal_in_the_middle_of_a_run(home: Path, how: signal.Signals, exit_code: int) -> None:
    before = Machine()
    run = _start(home, LONG)
    try:
        run.wait_until("running")
        assert len(run.network_namespaces()) == 4  # the sandbox and three servers
        assert {"ovs-vswitchd", "ovsdb-server", "bash"} <= {p.name() for p in run.processes()}
        assert run.end(how) == exit_code, run.stderr
        assert nothing_left(before, run) == []
    finally:
        run.abandon()


@SIGNALS
def test_after_a_signal_while_the_fabric_is_built(home: Path, how: signal.Signals, exit_code: int) -> None:
    before = Machine()
    run = _start(home, LONG)
    try:
        run.wait_until("building the fabric")
        assert run.end(how) == exit_code, run.stderr
        assert nothing_left(before, run) == []
    finally:
        run.abandon()


def test_after_an_exception_in_the_caller(home: Path) -> None:
    before = Machine()
    (home / "scenario.yaml").write_text(SCENARIO.format(size_bytes=LONG))
    (home / "caller.py").write_text(CALLER_WITH_A_BUG)
    run = MarkedRun(home, "caller.py", program=Path(sys.executable))
    try:
        assert run.end() == 1
        assert "RuntimeError: a bug in the caller" in run.stderr
        assert nothing_left(before, run) == []
    finally:
        run.abandon()


def test_after_a_normal_end_of_two_runs_side_by_side(home: Path) -> None:
    before = Machine()
    runs = [_start(home / name, SHORT) for name in ("one", "two")]
    try:
        assert [run.end() for run in runs] == [0, 0], [run.stderr for run in runs]
        assert nothing_left(before, *runs) == []
    finally:
        for run in runs:
            run.abandon()
