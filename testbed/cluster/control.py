"""Starts the controller of a run on real servers, on the coordinator's machine, and says what it is told."""

import subprocess
from pathlib import Path

import msgspec
import zmq

from controller.curve import HELLO, ClientKeys, ServerKeys, connect
from controller.mark_app import MarkConfig
from controller.shell import COORDINATOR
from testbed.cluster.assignment import Assigned
from testbed.cluster.inventory import Inventory
from testbed.coordinator.children import WORKING_DIRECTORY, environment, python_module
from testbed.coordinator.controller import ControllerProcess
from testbed.job import Job

_DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL", "--")


def mark_config(job: Job, assigned: Assigned, inventory: Inventory, keys: ServerKeys) -> MarkConfig:
    """What the controller of a job is started with."""
    return MarkConfig(
        endpoint=inventory.endpoint(2, listen=True),
        keys=keys,
        paths=assigned.paths,
        port_bps={link.id: link.bps for link in job.topology.links},
        dscps=inventory.dscps,
        policy=job.policy,
        policy_defaults=job.scheduler.defaults(),
    )


class MarkingController:
    """The process `controller.mark_app`, from `start` to `stop`. Its log is in `directory`."""

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", directory: Path) -> None:
        self._context = context
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: zmq.Socket[bytes] | None = None

    def start(self, config: MarkConfig, endpoint: str, own: ClientKeys) -> ControllerProcess:
        """Start it, and connect to `endpoint`, which is where others reach what it listens at."""
        with (self._directory / "controller.log").open("wb") as log:
            process = subprocess.Popen(
                [*_DIES_WITH_US, *python_module("controller.mark_app")],
                cwd=WORKING_DIRECTORY,
                env=environment(),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C goes to the coordinator only
            )
        self._process = process
        assert process.stdin is not None
        process.stdin.write(msgspec.msgpack.encode(config))
        process.stdin.close()
        self._socket = connect(self._context, endpoint, own, COORDINATOR)
        self._socket.send(HELLO)
        return ControllerProcess(process, self._socket, self._socket, switches=0)

    def log(self) -> str:
        """The last lines of its log."""
        path = self._directory / "controller.log"
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return "\n".join(lines[-8:])

    def stop(self) -> None:
        if self._socket is not None:
            self._socket.close(linger=0)
        if self._process is not None:
            self._process.kill()
            self._process.wait()
