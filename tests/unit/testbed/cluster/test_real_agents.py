"""A real agent, and the desk that it comes to, over loopback with keys."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from agent_office import EXPECTED, Office, until

from controller.curve_files import make_keys
from controller.sources import CODE_ROOT, source_digest
from testbed.cluster.agents import AgentDesk


def started(office: Office, job: str, *, patience_s: float = 15.0, **more: str) -> "subprocess.Popen[str]":
    """An agent, with its host name replaced by node01."""
    code = (
        "import socket; socket.gethostname = lambda: 'node01'\n"
        f"from workers import cluster; cluster.PATIENCE_S = {patience_s}; cluster.main()"
    )
    environment = os.environ | {
        "LOCAL_RANK": "0",
        "MFS_COORDINATOR": office.endpoint,
        "MFS_KEYS": str(office.keys_at / "ranks"),
        "MFS_JOB": job,
        **more,
    }
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Office]:
    expected = msgspec.structs.replace(EXPECTED, source=source_digest(CODE_ROOT))
    made = Office(tmp_path, expected)
    yield made
    made.close()


def test_a_real_agent_is_there_has_its_clock_read_and_leaves_when_it_is_dismissed(real: Office) -> None:
    """Both processes have one clock, so it is ahead by nothing."""
    process = started(real, "job")
    real.desk.wait_for(["node01/0"], 60.0, lambda missing: None)
    reading = real.desk.read_clocks(["node01/0"])["node01/0"]
    assert abs(reading.ahead_ns) <= reading.error_ns
    here = real.desk.here()["node01/0"]
    assert here.machine.mtus["lo"] > 0
    real.desk.close(failed=False)
    assert process.wait(30) == 0


def test_a_real_agent_with_the_wrong_key_ends_and_says_why(real: Office, tmp_path: Path) -> None:
    make_keys(tmp_path / "others")
    process = started(real, "job", MFS_KEYS=str(tmp_path / "others" / "ranks"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"the coordinator at {real.endpoint} does not take the key of this server" in errors


def test_a_real_agent_of_another_job_ends_and_says_why(real: Office) -> None:
    process = started(real, "older")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "refuses this agent: it was started for the job older, and this is job" in errors


def test_a_real_agent_that_is_told_to_end_says_so(real: Office) -> None:
    process = started(real, "job")
    real.desk.wait_for(["node01/0"], 60.0, lambda missing: None)
    process.send_signal(signal.SIGTERM)
    until(lambda: real.said)
    assert real.said == ["the agent node01/0 was told to end by SIGTERM"]
    process.communicate(timeout=30)
    assert process.returncode == 1


def test_a_real_agent_without_a_coordinator_gives_up(real: Office) -> None:
    real.endpoint = "tcp://127.0.0.1:1"  # nobody listens there
    process = started(real, "job", MFS_WAIT_S="0.5")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "nothing has been heard of tcp://127.0.0.1:1 for 0 s" in errors


def test_a_real_agent_whose_coordinator_is_gone_gives_up(
    real: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its patience is half a second longer here than what lies between two beats."""
    process = started(real, "job", patience_s=1.5)
    real.desk.wait_for(["node01/0"], 60.0, lambda missing: None)
    real.desk.read_clocks(["node01/0"])  # until it has heard something, it waits longer
    monkeypatch.setattr(AgentDesk, "here", lambda desk: {})  # so nobody is dismissed
    real.desk.close(failed=False)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"nothing has been heard of {real.endpoint} for 2 s" in errors


def test_an_agent_without_its_environment_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workers.cluster"],
        env={**os.environ, "LOCAL_RANK": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "not set: MFS_COORDINATOR, MFS_KEYS, MFS_JOB; `mfs cluster command` prints" in done.stderr
