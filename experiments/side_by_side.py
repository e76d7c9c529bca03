"""Work in processes beside each other.

The processes are forks of this one, so they begin at once with all that it has in memory. They end with it,
even if it is killed, and do not hear Ctrl-C, after which it ends them.
"""

import ctypes
import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Final, TypeVar, cast

import msgspec

from experiments.held_signal import HeldSignal
from testbed.fabric import RunFailed, RunProgress

Work = Callable[[Callable[[RunProgress], None]], Any]
"""Does its work, telling how far it is, and returns something that can be pickled."""

Made = TypeVar("Made")

_PR_SET_PDEATHSIG: Final = 1
_FORK: Final = multiprocessing.get_context("fork")


class _Done(msgspec.Struct, frozen=True):
    """What the work of a process has returned."""

    found: Any


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
    through: Callable[[str, Any], None],
    meanwhile: Callable[[], object],
) -> None:
    """Do all of `work`, at most `jobs` at a time. `through` is called with the name of each that is done, and
    what it has returned.

    `meanwhile` is called in this process once the first ones have begun. Raises the first exception of any,
    after the others have been ended, and `RunFailed` for a process that died.
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
                through(name, told.found)
    finally:
        for reader, (_, process) in running.items():
            process.kill()
            process.join()
            reader.close()


def all_of(
    makers: Mapping[str, Callable[[], Made]],
    *,
    jobs: int,
    meanwhile: Callable[[], object] = lambda: None,
    so_far: Callable[[int], object] = lambda _: None,
) -> dict[str, Made]:
    """Return what `makers` make, by name, in their order: with several `jobs`, in at most as many processes.

    A process that is through with one takes the next that nobody has taken. A process for each would take
    longer, because a process copies the memory that it writes to. `meanwhile` is called in this process, and
    `so_far` with how many there are whenever one more is made. Raises what they raise.
    """
    count = min(jobs, len(makers))
    made: dict[str, Made] = {}
    if jobs <= 1 or not makers:
        meanwhile()
        for name, make in makers.items():
            made[name] = make()
            so_far(len(made))
        return made
    numbers = itertools.count(1)

    def one_more(*_: object) -> None:
        so_far(next(numbers))

    left = _Left(len(makers))
    share = partial(_made, makers, left)
    try:
        run_side_by_side(
            [(f"{', '.join(makers)} ({i + 1} of {count})", share) for i in range(count)],
            jobs=count,
            progress=one_more,
            through=lambda _, found: made.update(found),
            meanwhile=meanwhile,
        )
    finally:
        left.close()
    return {name: made[name] for name in makers}


class _Left:
    """The numbers from 0 to `count` - 1, each of which one of several processes takes."""

    _SIZE: Final = 4

    def __init__(self, count: int) -> None:
        self._reader, writer = os.pipe()
        # All are in the pipe before anyone reads, so nobody gets a part of one.
        os.write(writer, b"".join(i.to_bytes(self._SIZE, "big") for i in range(count)))
        os.close(writer)

    def __iter__(self) -> Iterator[int]:
        while number := os.read(self._reader, self._SIZE):
            yield int.from_bytes(number, "big")

    def close(self) -> None:
        os.close(self._reader)


def _made(
    makers: Mapping[str, Callable[[], Made]], left: _Left, tell: Callable[[RunProgress], None]
) -> dict[str, Made]:
    """What a process of `all_of` does. It tells of each that it has made."""
    names = list(makers)
    made: dict[str, Made] = {}
    for i in left:
        made[names[i]] = makers[names[i]]()
        tell(RunProgress(phase="made", done=len(made)))
    return made


def _nothing() -> None:
    """There is nothing to do meanwhile any more."""


def _died(name: str, code: int | None) -> str:
    how = f"was killed by {signal.Signals(-code).name}" if code is not None and code < 0 else "ended early"
    return f"the process of {name} {how}; if it was killed for lack of memory, use fewer --jobs"


def _begun(work: Work) -> tuple[Connection, BaseProcess]:
    reader, writer = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_work, args=(work, writer, os.getpid()), daemon=True)
    # Libraries run code of theirs at a fork (`os.register_at_fork`), and Python ignores exceptions there.
    with HeldSignal() as held:
        process.start()
    writer.close()
    try:
        held.deliver()
    except BaseException:
        process.kill()  # nobody else knows of it yet
        raise
    return reader, process


def _work(work: Work, writer: Connection, owner: int) -> None:
    """What the process does: `work`, and then it tells that it is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with(owner)
    gc.freeze()  # what the owner has made is shared with it as long as nobody writes to it
    try:
        told: _Done | _Failed = _Done(work(writer.send))
    except BaseException as error:
        told = _Failed(_pickled(error), traceback.format_exc())
    writer.send(told)


def end_with(owner: int) -> None:
    """From now on, this process ends when the process `owner`, which has begun it, does, even if that is
    killed."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != owner:  # it has ended before this process asked to end with it
        os._exit(1)


def _pickled(error: BaseException) -> bytes:
    """Return `error` as bytes; if it cannot be sent, one that says the same."""
    try:
        made = pickle.dumps(error)
        pickle.loads(made)
    except Exception:
        return pickle.dumps(RuntimeError("".join(traceback.format_exception_only(error)).strip()))
    return made
