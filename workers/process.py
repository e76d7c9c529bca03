"""What a process does to itself before it becomes part of a run: its name, its network, its end."""

import contextlib
import ctypes
import os
import signal
from collections.abc import Iterator

_CLONE_NEWNET = 0x40000000
_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


def enter_network_of(pid: int) -> None:
    """Move this thread into the network namespace of process `pid`. Raises `OSError`."""
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        _set_network(fd, f"the network of process {pid}")
    finally:
        os.close(fd)


@contextlib.contextmanager
def in_network_of(pid: int) -> Iterator[None]:
    """Be in the network namespace of process `pid`, with this thread and what it starts. Raises `OSError`."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        enter_network_of(pid)
        yield
    finally:
        _set_network(home, "the network that it was in")
        os.close(home)


def _set_network(fd: int, which: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), f"setns to {which}")


def call_this_process(name: str) -> None:
    """Give this process the name that `ps` and `/proc` show, at most 15 letters."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when process `parent`, which has forked it, ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it has ended before
        os._exit(1)


def words_of_exit(code: int) -> str:
    """How a process ended, by an exit code as `subprocess` gives it, which is negative after a signal."""
    return f"exit code {code}" if code >= 0 else f"signal {-code}"
