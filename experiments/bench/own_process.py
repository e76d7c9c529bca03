"""Calling a function in a process of its own, so that nothing before it is in its memory or its caches."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

from experiments.side_by_side import end_with
from testbed.fabric import RunFailed

P = ParamSpec("P")
T = TypeVar("T")


def in_own_process(what: str, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `function` returns, or raise what it raises, in a new interpreter.

    Raises `RunFailed`, which names `what` was done, if the process dies. A pool would wait for it forever.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_call, args=(sending, function, args, kwargs, os.getpid()))
    process.start()
    sending.close()
    try:
        returned, value = receiving.recv()
    except EOFError:
        raise RunFailed(
            f"{what}: its process died; if it was killed for lack of memory, take a smaller --case"
        ) from None
    finally:
        process.kill()
        process.join()
        receiving.close()
    if not returned:
        raise value
    result: T = value
    return result


def _call(sending: Connection, function: Callable[..., Any], args: Any, kwargs: Any, owner: int) -> None:
    end_with(owner)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends this process
    try:
        sending.send((True, function(*args, **kwargs)))
    except Exception as error:
        sending.send((False, error))
