"""The controller of real servers: ranks mark their packets, and connect to it over TCP with keys.

Run as `python -m controller.mark_app`, with a msgpack `MarkConfig` on standard input. Keys are in it, so it
is never in a file or in a command line.
"""

import select
import sys
from typing import Final

import msgspec
import zmq

from controller.curve import ServerKeys
from controller.dispatcher import Dispatcher
from controller.flow import PortId
from controller.gate import let_in
from controller.markers import Markers
from controller.marks import MarkBook, MarkChange
from controller.overload import Prunings
from controller.pulse import start_beating
from controller.shell import Shell
from controller.spec import read_spec
from controller.tcp_hub import TcpHub

MOST_BYTES: Final = 2**20
"""How large a message of a rank or the coordinator may be."""


class MarkConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the controller process is started with.

    It listens at `endpoint`. `paths` are those of `MarkBook`, `port_bps` are model bits/s. `dscps` are by
    level; None: nothing is marked. `policy` and `policy_defaults` are as in `controller.ryu_app`.
    """

    endpoint: str
    keys: ServerKeys
    paths: dict[str, tuple[str, ...]]
    port_bps: dict[PortId, int]
    dscps: tuple[int, ...] | None
    policy: str
    policy_defaults: dict[str, int | float | str | bool]


class _SystemThreads:
    """Waits as a process with threads of the system does."""

    @staticmethod
    def wait_readable(fd: int, timeout_s: float) -> None:
        # Not `poll`, which waits whole milliseconds. ZeroMQ's descriptor is opened early, and so below 1,024.
        select.select([fd], [], [], timeout_s)

    @staticmethod
    def let_others_run() -> None:
        """They run anyway."""


def _log(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> None:
    config = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=MarkConfig)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    let_in(context, config.keys, _log)
    try:
        hub = TcpHub(context, config.endpoint, config.keys, _log, most_bytes=MOST_BYTES)
    except zmq.ZMQError as error:
        sys.exit(f"cannot listen at {config.endpoint}: {error}; see coordinator in the inventory")
    spec = read_spec(config.policy, **config.policy_defaults)
    prunings = Prunings()
    rules = MarkBook(config.paths, enforced=config.dscps is not None)
    shell: Shell[MarkChange] = Shell(
        Dispatcher(spec.scheduler(config.port_bps, prunings.changed), rules),
        Markers(hub, config.dscps or ()),
        hub,
        _SystemThreads(),
        prunings=prunings,
        switches=0,
        implementation="IP_TOS" if config.dscps is not None else "none",
    )
    start_beating(shell.pulse)
    shell.serve()


if __name__ == "__main__":
    main()
