"""Which processes are stopped, as `/proc` tells it, and when one has been stopped for too long."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from testbed.emulation.processes import StopWatch, stopped


def process(proc: Path, pid: int, name: str, state: str, *command: str) -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {state} 1 1 0")
    (proc / str(pid) / "cmdline").write_bytes(b"\0".join(word.encode() for word in command) + b"\0")


def test_stopped_processes_have_the_names_that_a_user_knows(tmp_path: Path) -> None:
    process(tmp_path, 3, "ovs-vswitchd", "T", "ovs-vswitchd", "unix:db.sock")
    process(tmp_path, 4, "ovsdb-server", "S", "ovsdb-server")
    process(tmp_path, 5, "python3", "T", "python3", "-P", "-m", "controller.ryu_app", "config")
    process(tmp_path, 6, "python3", "t", "python3", "-P", "-m", "workers.zygote")
    process(tmp_path, 7, "rank 0", "T", "python3", "-P", "-m", "workers.zygote")
    process(tmp_path, 8, "a (b) T", "S", "odd")
    (tmp_path / "meminfo").write_text("")
    assert stopped(tmp_path) == {
        3: "ovs-vswitchd",
        5: "the controller",
        6: "the workers' parent process",
        7: "rank 0",
    }


def test_a_real_process_that_is_stopped_is_found() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        try:
            assert child.pid not in stopped()
            os.kill(child.pid, signal.SIGSTOP)
            deadline = time.monotonic() + 10
            while child.pid not in stopped():
                assert time.monotonic() < deadline
                time.sleep(0.01)
        finally:
            child.kill()


def give_up(what: str) -> None:
    pytest.fail(what)


def test_a_process_that_stays_stopped_for_ten_seconds_is_given_up() -> None:
    watch = StopWatch(give_up)
    assert [watch.look({7: "rank 0"}) for _ in range(20)] == [""] * 20  # twice a second
    assert watch.look({7: "rank 0"}) == "rank 0 (process 7 of the sandbox) has been stopped for 10 s"


def test_a_process_that_goes_on_in_between_is_not() -> None:
    watch = StopWatch(give_up)
    looks = [watch.look({7: "rank 0"}) for _ in range(15)]
    looks.append(watch.look({}))
    looks += [watch.look({7: "rank 0"}) for _ in range(15)]
    assert looks == [""] * 31


def test_a_daemon_that_has_ended_is_given_up_when_nobody_else_has_said_so_for_two_seconds() -> None:
    watch = StopWatch(give_up)
    assert [watch.look({}, "ovs-vswitchd has ended") for _ in range(4)] == [""] * 4
    assert watch.look({}, "ovs-vswitchd has ended") == "ovs-vswitchd has ended"


def test_a_process_that_the_scenario_pauses_is_given_up_only_for_the_time_after_it() -> None:
    watch = StopWatch(give_up)
    watch.excused = lambda: ["rank 0"]
    assert [watch.look({7: "rank 0"}) for _ in range(99)] == [""] * 99
    assert [watch.look({8: "rank 1"}) for _ in range(20)] == [""] * 20
    assert watch.look({8: "rank 1"}).startswith("rank 1 ")
    watch.excused = tuple
    assert [watch.look({7: "rank 0"}) for _ in range(20)] == [""] * 20
    assert watch.look({7: "rank 0"}).startswith("rank 0 ")
