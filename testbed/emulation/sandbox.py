"""A sandbox for one run, which leaves nothing behind, however the run ends.

`setpriv --pdeathsig` ties `unshare` to this process, and `unshare --kill-child` ties the sandbox to
`unshare`. If this process dies, even by SIGKILL, the kernel kills the first process of the sandbox's PID
namespace, and with it every process of the run. Interfaces, bridges and network namespaces last as long as
the processes in them. Files are on a tmpfs that only the sandbox's mount namespace has. Nothing outside the
sandbox changes, so nothing has to be restored.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import msgspec
import psutil

from testbed.coordinator.children import WORKING_DIRECTORY, environment, python_module
from testbed.coordinator.memory import MemoryKills
from testbed.fabric import RunFailed, RunProgress
from testbed.job import Job
from testbed.readable import readable
from testbed.record import RunRecord
from testbed.record_file import read_from
from workers.process import words_of_exit

SCRATCH = Path("/dev/shm")
"""Where the sandbox mounts its own tmpfs, over that of the machine. Every Linux has this directory."""


_PATIENCE_S = 12.0
"""Longer than the sandbox waits for its own processes: what it says about them is better."""

_MOST_AT_ONCE = 2**20


class Failed(msgspec.Struct, frozen=True, kw_only=True, tag="failed"):
    """The run failed. `log` holds the last lines of every log, which may show why."""

    message: str
    log: str


class Alive(msgspec.Struct, frozen=True, kw_only=True, tag="alive"):
    """The sandbox's first process runs. It says so every second, whatever else it does."""


class Moved(msgspec.Struct, frozen=True, kw_only=True, tag="moved"):
    progress: RunProgress


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag="ended"):
    """The run has ended, and its record is in the file for it: it may not fit into memory."""


Report = Failed | Alive | Moved | Ended

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


class _Silent(Exception):
    """Nothing came for `_PATIENCE_S`."""


def _read_frame(fd: int) -> Report:
    head = _read(fd, 8)
    if not head:
        raise _BrokenOff
    size = int.from_bytes(head, "big")
    raw = _read(fd, size) if len(head) == 8 else b""
    if len(head) < 8 or len(raw) < size:
        raise _BrokenOff("its last report breaks off")
    try:
        report: Report = _decode(raw)
    except msgspec.MsgspecError as error:
        raise _BrokenOff(f"its last report cannot be read: {error}") from None
    return report


def _read(fd: int, size: int) -> bytes:
    """Return `size` bytes, or fewer if the stream ends before. Raises `_Silent`."""
    parts = bytearray()
    while len(parts) < size:
        if not readable(fd, _PATIENCE_S):
            raise _Silent
        part = os.read(fd, min(size - len(parts), _MOST_AT_ONCE))
        if not part:
            break
        parts += part
    return bytes(parts)


COMMAND = (
    "setpriv", "--pdeathsig", "KILL", "--",
    "unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--",
)  # fmt: skip


def run_in_sandbox(job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
    """Run `job` in new network, mount and PID namespaces and return its record.

    Raises `RunFailed`. The sandbox is killed before any exception propagates, Ctrl-C included.
    """
    memory = MemoryKills()
    read_fd, write_fd = os.pipe()
    # Output goes to a file without a name, which cannot be left behind and cannot block.
    with (
        tempfile.TemporaryFile() as errors,
        tempfile.TemporaryFile() as record,
        os.fdopen(read_fd, "rb", buffering=0) as reports,
    ):
        numbers = (str(write_fd), str(record.fileno()))
        process = subprocess.Popen(
            [*COMMAND, *python_module("testbed.emulation.inside", *numbers)],
            cwd=WORKING_DIRECTORY,
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=errors,
            stderr=errors,
            pass_fds=(write_fd, record.fileno()),
            start_new_session=True,  # Ctrl-C goes to this process only
        )
        os.close(write_fd)
        try:
            # In a thread: a job is larger than a pipe, and the process may be stopped before it reads it.
            threading.Thread(target=_hand_over, args=(process, job), daemon=True).start()
            _follow(process, reports.fileno(), errors, progress, memory)
            return read_from(record.fileno())
        finally:
            kill(process)


def _hand_over(process: "subprocess.Popen[bytes]", job: Job) -> None:
    assert process.stdin is not None
    # The process may have ended already; `_follow` reports how. If the broken pipe propagated, it would be
    # taken for a closed standard output.
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(msgspec.msgpack.encode(job))
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def _follow(
    process: "subprocess.Popen[bytes]",
    reports: int,
    errors: IO[bytes],
    progress: Callable[[RunProgress], None],
    memory: MemoryKills,
) -> None:
    """Return when the run has ended. Raises `RunFailed`."""
    while True:
        try:
            report = _read_frame(reports)
        except _BrokenOff as end:
            process.wait()
            what = ", ".join(filter(None, (words_of_exit(process.returncode), end.inside)))
            raise RunFailed(f"the sandbox ended early ({what}){memory.note()}:\n{_tail(errors)}") from None
        except _Silent:
            what = f"the sandbox has said nothing for {_PATIENCE_S:.0f} s: {_who_is_silent(process.pid)}"
            raise RunFailed(f"{what}\n{_tail(errors)}".rstrip()) from None
        match report:
            case Alive():
                pass
            case Moved():
                progress(report.progress)
            case Ended():
                return
            case Failed():
                raise RunFailed(report.message + (f"\n{report.log}" if report.log else ""))


def _who_is_silent(pid: int) -> str:
    """The process that should report, and what it does: `unshare`, or its child, process 1."""
    try:
        launcher = psutil.Process(pid)
        first = next(iter(launcher.children()), None)
        silent = launcher if first is None or launcher.status() == psutil.STATUS_STOPPED else first
        name = "its launcher" if silent is launcher else "its process 1"
        return f"{name} (process {silent.pid} of this machine) is {silent.status()}"
    except psutil.NoSuchProcess:
        return "it is ending"


def kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill the sandbox, unless it has ended, and wait until all of it is gone."""
    if process.poll() is None:
        first = _children(process.pid)
        # The kernel kills the child of `unshare` (the sandbox's process 1) when `unshare` dies, and with that
        # child all that is left in the sandbox. The child is gone when they are.
        process.send_signal(signal.SIGKILL)
        deadline_s = time.monotonic() + _PATIENCE_S
        while any(_runs(one) for one in first) and time.monotonic() < deadline_s:
            time.sleep(0.01)
    process.wait()


def _children(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children())
    except psutil.NoSuchProcess:
        return []


def _runs(process: psutil.Process) -> bool:
    try:
        # Nobody may ask how it ended. Threads can run after the first one has ended.
        ended: bool = process.status() == psutil.STATUS_ZOMBIE and process.num_threads() <= 1
    except psutil.NoSuchProcess:
        return False
    return not ended


def _tail(errors: IO[bytes]) -> str:
    errors.seek(0)
    return "\n".join(errors.read().decode(errors="replace").splitlines()[-25:])
