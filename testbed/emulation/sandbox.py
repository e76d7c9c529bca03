"""A house for one run that leaves nothing behind, however the run ends.

`setpriv --pdeathsig` ties `unshare` to us and `unshare --kill-child` ties the sandbox to `unshare`:
if we die, even by SIGKILL, the kernel kills the first process of the sandbox's PID namespace, and with it
every process of the run. Interfaces, bridges and network namespaces live as long as a process in
them; files live on a tmpfs that only the sandbox's mount namespace has. Nothing of the machine is
changed, so there is nothing to put back.
"""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from testbed.fabric import RunFailed, RunProgress
from testbed.job import Job
from testbed.record import RunRecord

SCRATCH = Path("/dev/shm")
"""Where the sandbox mounts its own tmpfs, hiding the machine's: every Linux has this directory."""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The run ended badly; `log` holds the last lines of the processes that may tell why."""

    message: str
    log: str


class Moved(msgspec.Struct, frozen=True, kw_only=True, tag="moved"):
    progress: RunProgress


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    record: RunRecord


Report = Failed | Moved | Ended

_decode = msgspec.msgpack.Decoder(Report).decode
_encode = msgspec.msgpack.Encoder().encode


def write_frame(stream: IO[bytes], report: Report) -> None:
    raw = _encode(report)
    stream.write(len(raw).to_bytes(8, "big") + raw)
    stream.flush()


class _BrokenOff(Exception):
    """The stream ended: between two reports, or (`inside`) in the middle of one."""

    def __init__(self, inside: str = "") -> None:
        self.inside = inside


def _read_frame(stream: IO[bytes]) -> Report:
    head = stream.read(8)
    if not head:
        raise _BrokenOff
    size = int.from_bytes(head, "big")
    raw = stream.read(size) if len(head) == 8 else b""
    if len(head) < 8 or len(raw) < size:
        raise _BrokenOff("its last report breaks off")
    try:
        report: Report = _decode(raw)
    except msgspec.MsgspecError as error:
        raise _BrokenOff(f"its last report cannot be read: {error}") from None
    return report


COMMAND = (
    "setpriv", "--pdeathsig", "KILL", "--",
    "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
)  # fmt: skip


def run_in_sandbox(job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
    """Run `job` in fresh network, mount and PID namespaces and return what it recorded.

    Raises `RunFailed`. On any exception here, Ctrl-C included, the sandbox is killed before the
    exception goes on.
    """
    read_fd, write_fd = os.pipe()
    # Standard error goes to a file without a name: it cannot be left behind, and it cannot block.
    with tempfile.TemporaryFile() as errors, os.fdopen(read_fd, "rb") as reports:
        process = subprocess.Popen(
            [*COMMAND, sys.executable, "-m", "testbed.emulation.inside", str(write_fd)],
            stdin=subprocess.PIPE,
            stdout=errors,
            stderr=errors,
            pass_fds=(write_fd,),
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        os.close(write_fd)
        try:
            _hand_over(process, job)
            return _follow(process, reports, errors, progress)
        finally:
            kill(process)


def _hand_over(process: "subprocess.Popen[bytes]", job: Job) -> None:
    assert process.stdin is not None
    # It may be gone already: `_follow` tells how it ended. A broken pipe that went on from here would be
    # taken for a closed standard output.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(msgspec.msgpack.encode(job))
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def _follow(
    process: "subprocess.Popen[bytes]",
    reports: IO[bytes],
    errors: IO[bytes],
    progress: Callable[[RunProgress], None],
) -> RunRecord:
    while True:
        try:
            report = _read_frame(reports)
        except _BrokenOff as end:
            process.wait()
            what = ", ".join(filter(None, (_how(process.returncode), end.inside)))
            raise RunFailed(f"the sandbox ended early ({what}):\n{_tail(errors)}") from None
        match report:
            case Moved():
                progress(report.progress)
            case Ended():
                return report.record
            case Failed():
                raise RunFailed(report.message + (f"\n{report.log}" if report.log else ""))


def kill(process: "subprocess.Popen[bytes]") -> None:
    """End the sandbox, if it has not ended, and wait until all of it is gone."""
    if process.poll() is None:
        # The kernel kills the child of `unshare` (the sandbox's process 1) when `unshare` dies.
        process.send_signal(signal.SIGKILL)
    process.wait()


def _how(returncode: int) -> str:
    return f"exit code {returncode}" if returncode >= 0 else f"signal {-returncode}"


def _tail(errors: IO[bytes]) -> str:
    errors.seek(0)
    return "\n".join(errors.read().decode(errors="replace").splitlines()[-25:])
