"""A house for one run that leaves nothing behind, however the run ends.

`setpriv --pdeathsig` ties `unshare` to us and `unshare --kill-child` ties the sandbox to `unshare`:
if we die, even by SIGKILL, the kernel kills the first process of the sandbox's PID namespace, and with it
every process of the run. Interfaces, bridges and network namespaces live as long as a process in
them; files live on a tmpfs that only the sandbox's mount namespace has. Nothing of the machine is
changed, so there is nothing to put back.
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec

from testbed.fabric import Progress, RunFailed
from testbed.job import Job
from testbed.record import RunRecord

SCRATCH = Path("/dev/shm")
"""Where the sandbox mounts its own tmpfs, hiding the machine's: every Linux has this directory."""


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The run ended badly; `log` holds the last lines of the processes that may tell why."""

    message: str
    log: str


class Moved(msgspec.Struct, frozen=True, kw_only=True, tag="moved"):
    progress: Progress


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    record: RunRecord


Report = Failed | Moved | Ended

_decode = msgspec.msgpack.Decoder(Report).decode
_encode = msgspec.msgpack.Encoder().encode


def write_frame(stream: IO[bytes], report: Report) -> None:
    raw = _encode(report)
    stream.write(len(raw).to_bytes(8, "big") + raw)
    stream.flush()


def _read_frame(stream: IO[bytes]) -> Report | None:
    head = stream.read(8)
    if len(head) < 8:
        return None
    raw = stream.read(int.from_bytes(head, "big"))
    report: Report = _decode(raw)
    return report


COMMAND = (
    "setpriv", "--pdeathsig", "KILL", "--",
    "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
)  # fmt: skip


def run_in_sandbox(job: Job, progress: Callable[[Progress], None]) -> RunRecord:
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
            assert process.stdin is not None
            process.stdin.write(msgspec.msgpack.encode(job))
            process.stdin.close()
            return _follow(process, reports, errors, progress)
        finally:
            kill(process)


def _follow(
    process: "subprocess.Popen[bytes]",
    reports: IO[bytes],
    errors: IO[bytes],
    progress: Callable[[Progress], None],
) -> RunRecord:
    while True:
        report = _read_frame(reports)
        match report:
            case Moved():
                progress(report.progress)
            case Ended():
                return report.record
            case Failed():
                raise RunFailed(report.message + (f"\n{report.log}" if report.log else ""))
            case None:
                process.wait()
                raise RunFailed(f"the sandbox ended early ({_how(process.returncode)}):\n{_tail(errors)}")


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
