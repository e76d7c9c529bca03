"""Open vSwitch starts even where its daemons are held up on the way."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from testbed.emulation import ovs
from testbed.emulation.ovs import OpenVSwitch, OpenVSwitchFailed

HELD_UP = """\
#!{python}
import os, socket, sys, time
path = next(word for word in sys.argv if word.startswith("--remote=punix:")).removeprefix("--remote=punix:")
bound = socket.socket(socket.AF_UNIX)
bound.bind(path)
time.sleep({seconds})
os.unlink(path)
os.execv({server!r}, [{server!r}, *sys.argv[1:]])
"""


@pytest.fixture
def directory(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory of a short path. What was started in it ends after the test."""
    for name in ("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"):
        monkeypatch.setenv(name, "")  # and so put back afterwards
    with tempfile.TemporaryDirectory(prefix="mfs-") as name:
        yield Path(name)
        mine = [child for child in psutil.Process().children() if name in " ".join(child.cmdline())]
        for child in mine:
            child.kill()
        psutil.wait_procs(mine)


def hold_up(directory: Path, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket of the database is there for `seconds` before anyone listens on it."""
    server = shutil.which("ovsdb-server")
    programs = directory / "bin"
    programs.mkdir()
    (programs / "ovsdb-server").write_text(
        HELD_UP.format(python=sys.executable, seconds=seconds, server=server)
    )
    (programs / "ovsdb-server").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


def test_a_database_that_does_not_listen_yet_is_waited_for(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold_up(directory, 0.5, monkeypatch)
    switch = OpenVSwitch(directory)
    switch.start()
    assert switch.ended() == ""


def test_one_that_never_listens_ends_the_start_with_a_reason(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ovs, "_START_SECONDS", 2.0)
    hold_up(directory, 60.0, monkeypatch)
    with pytest.raises(OpenVSwitchFailed, match="Open vSwitch did not start"):
        OpenVSwitch(directory).start()
