"""`mfs bench transport`: what a lane costs beside bare torch.distributed, on one pair of processes.

The pair is on this machine and speaks over its loopback interface, so the network costs next to nothing and
all that a lane adds is seen. docs/measured/transport.md says what the columns mean.
"""

import contextlib
import multiprocessing
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

import zmq

from controller.curve_files import coordinator_keys, make_keys, ranks_keys
from controller.mark_app import MarkConfig
from experiments.bench.transport_ways import KIB, SERVERS, Measured, Setup, Task, Way
from experiments.errors import UserError
from testbed.cluster.control import MarkingController
from testbed.coordinator.controller import ControllerProcess
from testbed.fabric import RunFailed
from workers.options import Device

DEFAULT_KIB: Final = tuple(4**i for i in range(10))
"""1 KiB to 256 MiB."""

LEAST_TURNS: Final = 10

_POLICY: Final = "fair"
"""It gives all flows one level, so none changes."""

_BPS: Final = 100_000_000_000
_START_S = 120.0
_TURN_S = 60.0


def measure(
    sizes_kib: Sequence[int],
    *,
    seconds: float,
    chunk_kib: int,
    verify_share: float,
    device: Device,
    on_start: Callable[[int], None],
) -> Iterator[Measured]:
    """Measure messages of each size for `seconds`, and yield what was found. `on_start` is called with each.

    Raises `UserError` if `device` is not there, and `RunFailed` if one of the processes dies.
    """
    _refuse_missing(device)
    with tempfile.TemporaryDirectory(prefix="mfs-bench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        endpoint, controller = _start_controller(directory, stack)
        setup = Setup(
            store=str(directory / "store"),
            endpoint=endpoint,
            unused=f"ipc://{directory}/unused",
            keys=ranks_keys(directory / "keys" / "ranks"),
            chunk_bytes=chunk_kib * KIB,
            verify_share=verify_share,
            device=device,
        )
        tasks, processes = _start_ends(setup, stack)
        patience_s = _START_S
        for size_kib in sizes_kib:
            on_start(size_kib)
            tasks.send(Task(size_bytes=size_kib * KIB, seconds=seconds, least_turns=LEAST_TURNS))
            times_ns = _answer(tasks, processes, controller, patience_s + seconds + LEAST_TURNS * _TURN_S)
            yield Measured(size_bytes=size_kib * KIB, times_ns=times_ns)
            patience_s = 0.0


def _refuse_missing(device: Device) -> None:
    if device is not Device.CUDA:
        return
    import torch

    if torch.cuda.device_count() < 2:
        raise UserError(
            "--device cuda: NCCL needs a GPU for each of the two processes, and this machine has"
            f" {torch.cuda.device_count()}"
        )


def _start_controller(directory: Path, stack: contextlib.ExitStack) -> tuple[str, ControllerProcess]:
    """Start the controller of real servers, with keys, on a free port. Returns its address, too."""
    make_keys(directory / "keys")
    keys, own = coordinator_keys(directory / "keys")
    with socket.create_server(("127.0.0.1", 0)) as free:
        endpoint = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    a, b = SERVERS
    config = MarkConfig(
        endpoint=endpoint,
        keys=keys,
        paths={f"{a} {b}": (a, "s1", b)},
        port_bps={f"{a}->s1": _BPS, f"s1->{b}": _BPS},
        dscps=None,
        policy=_POLICY,
        policy_defaults={},
    )
    marking = MarkingController(zmq.Context.instance(), directory)
    stack.callback(marking.stop)
    return endpoint, marking.start(config, endpoint, own)


def _start_ends(setup: Setup, stack: contextlib.ExitStack) -> tuple[Connection, tuple[BaseProcess, ...]]:
    """Start the two processes. Returns the connection to the sender."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    peers = context.Pipe()
    processes = (
        context.Process(target=_sender, args=(setup, theirs, peers[0]), daemon=True),
        context.Process(target=_receiver, args=(setup, peers[1]), daemon=True),
    )
    for process in processes:
        process.start()
        stack.callback(process.join)
        stack.callback(process.kill)
    for end in (theirs, *peers):
        end.close()
    return ours, processes


def _sender(setup: Setup, tasks: Connection, peer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends this process
    from experiments.bench.transport_ends import run_sender

    run_sender(setup, tasks, peer)


def _receiver(setup: Setup, peer: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from experiments.bench.transport_ends import run_receiver

    run_receiver(setup, peer)


def _answer(
    tasks: Connection, processes: Sequence[BaseProcess], controller: ControllerProcess, seconds: float
) -> dict[Way, list[int]]:
    """The sender's times. Raises `RunFailed` if they have not come after `seconds`, or never will."""
    deadline = time.monotonic() + seconds
    while not tasks.poll(0.2):
        controller.check_idle()
        if any(process.exitcode is not None for process in processes):
            raise RunFailed("a process of the pair died; what it said is above")
        if time.monotonic() > deadline:
            raise RunFailed(f"the messages of one size have not arrived within {seconds:.0f} s")
    try:
        answer: dict[Way, list[int]] = tasks.recv()
    except EOFError:
        raise RunFailed("a process of the pair died; what it said is above") from None
    return answer
