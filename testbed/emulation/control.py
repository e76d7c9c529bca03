"""Starts the controller of an emulated run, which speaks OpenFlow."""

import contextlib
import subprocess
from pathlib import Path

import msgspec
import zmq

from controller.openflow import Wiring
from controller.ryu_app import ShellConfig
from controller.shell import COORDINATOR
from testbed.coordinator.children import python_module
from testbed.coordinator.controller import ControllerProcess
from testbed.emulation.endpoints import Endpoints
from testbed.emulation.network import OPENFLOW_PORT
from testbed.job import Job


def start_process(directory: Path) -> "subprocess.Popen[bytes]":
    """Start `controller.ryu_app`, with its log in `directory`.

    While it imports Ryu, the fabric can be laid out. It then reads from its standard input what `configured`
    writes.
    """
    with (directory / "controller.log").open("wb") as log:
        # Every permit waits for this process, so it runs at a higher priority than the workers.
        return subprocess.Popen(
            ["nice", "-n", "-10", *python_module("controller.ryu_app", "/dev/stdin")],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
        )


def configured(
    process: "subprocess.Popen[bytes]", job: Job, wiring: Wiring, directory: Path
) -> ControllerProcess:
    """Tell the process its job and the wiring, with its sockets in `directory`."""
    endpoints = Endpoints(directory)
    config = ShellConfig(
        wiring=wiring,
        policy=job.policy,
        policy_defaults=job.scheduler.defaults(),
        uplink=endpoints.to_controller,
        downlinks={
            COORDINATOR: endpoints.from_controller(COORDINATOR),
            **{str(r.rank): endpoints.from_controller(str(r.rank)) for r in job.placement.ranks},
        },
        openflow_host="127.0.0.1",
        openflow_port=OPENFLOW_PORT,
    )
    assert process.stdin is not None
    # If it has ended, whoever asks it for something first says how.
    with contextlib.suppress(BrokenPipeError), process.stdin:
        process.stdin.write(msgspec.msgpack.encode(config))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    out = context.socket(zmq.PUSH)
    out.set_hwm(0)
    out.connect(endpoints.to_controller)
    inbox = context.socket(zmq.PULL)
    inbox.set_hwm(0)
    inbox.bind(endpoints.from_controller(COORDINATOR))
    return ControllerProcess(process, out, inbox, switches=len(wiring.bridges))
