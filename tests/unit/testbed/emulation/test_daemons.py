"""A daemon is asked on its control socket whether it runs. A thread stands in for it."""

import contextlib
import socket
import threading
import time
from pathlib import Path

import pytest
from many_files import many_files

from testbed.emulation import daemons
from testbed.emulation.daemons import DaemonPulse
from testbed.fabric import RunFailed

MS = 1_000_000


class Daemon:
    """Answers each question in two parts; from question `pauses_at` on, only after `pause_s`."""

    def __init__(self, path: Path, *, pauses_at: int = -1, pause_s: float = 0.0) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._pauses_at, self._pause_s = pauses_at, pause_s
        self.answered = 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        asker, _ = self._listener.accept()
        with contextlib.suppress(ConnectionError):  # whoever asks may leave before the answer
            while asker.recv(4096):
                if self.answered == self._pauses_at:
                    time.sleep(self._pause_s)
                asker.sendall(b'{"id":0,"result":"ovs-vswi')
                asker.sendall(b'tchd 3.1.0","error":null}')
                self.answered += 1

    def wait_for_answers(self, count: int) -> None:
        deadline = time.monotonic() + 10
        while self.answered < count:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ctl"


def keep_checking(pulse: DaemonPulse) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        pulse.check()
        time.sleep(0.01)


def test_a_daemon_that_does_not_answer_for_a_while_has_paused(path: Path) -> None:
    daemon, pulse = Daemon(path, pauses_at=2, pause_s=0.7), DaemonPulse("ovs-vswitchd", path)
    before_ns = time.monotonic_ns()
    pulse.start()
    daemon.wait_for_answers(4)
    pause = pulse.stop()
    # Each slice of the wait can be cut short by a busy machine, but not made longer.
    assert 100 * MS < pause.wall_ns < (time.monotonic_ns() - before_ns)
    assert pause.begin_wall_ns > before_ns


def test_a_daemon_that_is_silent_for_too_long_ends_the_run(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daemons, "PATIENCE_S", 0.2)
    daemon, pulse = Daemon(path, pauses_at=1, pause_s=60), DaemonPulse("ovs-vswitchd", path)
    pulse.start()
    daemon.wait_for_answers(1)
    pulse.check()
    with pytest.raises(RunFailed, match="ovs-vswitchd has not answered for 0 s"):
        keep_checking(pulse)


def test_a_process_with_a_thousand_open_files_can_ask(path: Path) -> None:
    with many_files():
        daemon, pulse = Daemon(path), DaemonPulse("ovs-vswitchd", path)
        pulse.start()
        daemon.wait_for_answers(3)
        pulse.check()
        pulse.stop()


def test_a_daemon_that_cannot_be_asked_ends_the_run(path: Path) -> None:
    pulse = DaemonPulse("ovsdb-server", path)
    pulse.start()
    with pytest.raises(RunFailed, match=r"ovsdb-server can no longer be asked .*: FileNotFoundError"):
        keep_checking(pulse)
