"""How a command of `mfs` ends: its exit code, and one message for an error that the user can cause."""

import contextlib
import errno
import os
import select
import signal
import sys
from collections.abc import Iterator

from experiments.atomic_file import CANNOT_WRITE
from experiments.cli.streams import printable
from experiments.errors import UserError

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_OUT_OF_MEMORY = "out of memory: run less at once (--jobs), or something smaller"


class _Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does, after cleaning up, and with a note on results that remain."""


def _terminate(*_: object) -> None:
    raise _Terminated


@contextlib.contextmanager
def told_to_the_user() -> Iterator[None]:
    """Turn errors that the user can cause into one message on standard error and an exit code."""
    from testbed.fabric import FabricUnavailable, JobRefused, NotOnThisMachine, RunFailed

    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except UserError as error:
        _stop(error, str(error), EXIT_REFUSED)
    except FabricUnavailable as error:
        from experiments.cli.fabric_needs import unavailable_text

        _stop(error, unavailable_text(error), EXIT_REFUSED)
    except NotOnThisMachine as error:
        _stop(error, f"not on this machine: {error}; `--fabric sim` simulates it", EXIT_REFUSED)
    except JobRefused as error:
        _stop(error, str(error), EXIT_REFUSED)
    except RunFailed as error:
        _stop(error, f"the run failed: {error}", EXIT_FAILED)
    except _Terminated as error:
        _stop(error, "terminated", EXIT_TERMINATED)
    except KeyboardInterrupt as error:
        _stop(error, "interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError as error:
        if not _a_reader_left():
            # A bug, so it needs a traceback. Typer would end silently on a plain `BrokenPipeError`.
            raise RuntimeError("a pipe broke that is not an output of this command") from error
        _standard_output_is_gone()
    except MemoryError as error:
        _stop(error, _OUT_OF_MEMORY, EXIT_FAILED)
    except OSError as error:
        if error.errno in CANNOT_WRITE and error.filename is None:
            # Code that writes results names the path, so this was standard output.
            _standard_output_is_gone()
            _stop(error, f"standard output cannot be written: {error.strerror}", EXIT_FAILED)
        if error.errno == errno.ENOSPC:
            _stop(error, f"the disk is full: {error.filename}", EXIT_FAILED)
        if error.errno in CANNOT_WRITE:
            _stop(error, f"{error.filename}: cannot be written: {error.strerror}", EXIT_FAILED)
        if error.errno in (errno.EMFILE, errno.ENFILE):
            _stop(error, "too many open files: raise the limit (ulimit -n)", EXIT_FAILED)
        if error.errno == errno.ENOMEM:
            _stop(error, _OUT_OF_MEMORY, EXIT_FAILED)
        if error.errno == errno.ENOENT and error.filename is None and _directory_is_gone():
            _stop(error, "the working directory does not exist any more: go to another one", EXIT_REFUSED)
        if error.filename is None:
            raise  # not about a file that the user named: a bug, which needs a traceback
        _stop(error, f"{error.filename}: {error.strerror}", EXIT_REFUSED)
    finally:
        signal.signal(signal.SIGTERM, before)


def _directory_is_gone() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def _a_reader_left() -> bool:
    """Return whether standard output or error is a pipe that nothing reads any more, as after `| head`."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)  # POLLERR is always reported
    return any(events & select.POLLERR for _, events in poll.poll(0))


def _standard_output_is_gone() -> None:
    """Send standard output to /dev/null. Python would flush the rest at exit, and report an error again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(error: BaseException, message: str, code: int) -> None:
    print(printable("\n".join([f"mfs: {message}", *getattr(error, "__notes__", ())])), file=sys.stderr)
    raise SystemExit(code)
