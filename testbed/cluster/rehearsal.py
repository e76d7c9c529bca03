"""A rehearsal: a run on servers that are namespaces of this machine, with the commands of a real one.

It happens in a sandbox, as an emulated run does, so it leaves nothing behind, however it ends.
"""

import contextlib
import subprocess
import threading
from pathlib import Path

import msgspec

from testbed.cluster.namespaces import Network
from testbed.coordinator.children import WORKING_DIRECTORY, environment, python_module
from testbed.emulation.sandbox import COMMAND, kill


class Rehearsal(msgspec.Struct, frozen=True, kw_only=True):
    """What is rehearsed: the network, and the arguments of `mfs run` and `mfs cluster command` for it.

    `arguments` name the scenario and its options. What queues sent is written to the file `queues`, if any.
    If `elastic` is set, `mfs run` goes on when servers die.
    """

    network: Network
    arguments: tuple[str, ...]
    out: str
    queues: str | None
    elastic: bool = False


def rehearse(rehearsal: Rehearsal) -> int:
    """Carry it out, with its output on ours. Returns the exit code of its `mfs run`."""
    process = subprocess.Popen(
        [*COMMAND, *python_module("testbed.cluster.rehearsal_inside")],
        cwd=WORKING_DIRECTORY,
        env=environment(),
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C goes to this process only
    )
    try:
        threading.Thread(target=_hand_over, args=(process, rehearsal), daemon=True).start()
        return process.wait()
    finally:
        kill(process)


def _hand_over(process: "subprocess.Popen[bytes]", rehearsal: Rehearsal) -> None:
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.write(msgspec.msgpack.encode(rehearsal))
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def where(path: Path | None) -> str | None:
    """`path` for a process in another directory."""
    return None if path is None else str(path.absolute())
