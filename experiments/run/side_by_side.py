"""Jobs in processes beside each other. A process leaves its record in the directory of the run.

The processes are forks of this one, so they begin at once with all that it has resolved. They end with it,
even if it is killed, and do not hear Ctrl-C, after which it ends them.
"""

import ctypes
import gc
import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Final, cast

import msgspec

from testbed.fabric import RunFailed, RunProgress

Work = Callable[[Callable[[RunProgress], None]], None]
"""Does a job and leaves its result behind, telling how far it is."""

_PR_SET_PDEATHSIG: Final = 1
_FORK: Final = multiprocessing.get_context("fork")


class _Failed(msgspec.Struct, frozen=True):
    """An exception in a process: itself, pickled, and its traceback."""

    error: bytes
    trace: str


class _InProcess(Exception):
    """The traceback of an exception in a process."""


def run_side_by_side(
    work: Sequence[tuple[str, Work]],
    *,
    jobs: int,
    progress: Callable[[str, RunProgress], None],
    through: Callable[[str], None],
    meanwhile: Callable[[], None],
) -> None:
    """Do all of `work`, at most `jobs` at a time. `through` is called with the name of each that is done.

    `meanwhile` is called once the first ones have begun. Raises the first exception of any, after the others
    have been ended, and `RunFailed` for a process that died.
    """
    left = list(work)
    running: dict[Connection, tuple[str, BaseProcess]] = {}  # by the connection on which each tells
    idle = meanwhile
    try:
        while left or running:
            while left and len(running) < jobs:
                name, one = left.pop(0)
                reader, process = _begun(one)
                running[reader] = name, process
            idle()
            idle = _nothing
            for ready in cast(list[Connection], wait(list(running))):
                name, process = running[ready]
                try:
                    told = ready.recv()
                except EOFError:
                    process.join()
                    raise RunFailed(_died(name, process.exitcode)) from None
                if isinstance(told, _Failed):
                    raise pickle.loads(told.error) from _InProcess(f"\n{told.trace}")
                if isinstance(told, RunProgress):
                    progress(name, told)
                    continue
                process.join()
                ready.close()
                del running[ready]
                through(name)
    finally:
        for reader, (_, process) in running.items():
            process.kill()
            process.join()
            reader.close()


def _nothing() -> None:
    """There is nothing to do meanwhile any more."""


def _died(name: str, code: int | None) -> str:
    how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else "ended early"
    return f"the process of {name} {how}; if it was killed for lack of memory, use fewer --jobs"


def _begun(work: Work) -> tuple[Connection, BaseProcess]:
    reader, writer = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_work, args=(work, writer, os.getpid()), daemon=True)
    process.start()
    writer.close()
    return reader, process


def _work(work: Work, writer: Connection, owner: int) -> None:
    """What the process does: `work`, and then it tells that it is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:  # it has ended before this process asked to end with it
        os._exit(1)
    gc.freeze()  # what the owner has made is shared with it as long as nobody writes to it
    try:
        work(writer.send)
    except BaseException as error:
        writer.send(_Failed(_pickled(error), traceback.format_exc()))
    else:
        writer.send(None)


def _pickled(error: BaseException) -> bytes:
    """Return `error` as bytes; if it cannot be sent, one that says the same."""
    try:
        made = pickle.dumps(error)
        pickle.loads(made)
    except Exception:
        return pickle.dumps(RuntimeError("".join(traceback.format_exception_only(error)).strip()))
    return made
