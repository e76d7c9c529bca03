"""Does something to the processes and links of a running sandbox, from outside."""

import contextlib
import signal
import subprocess
import threading
import time
from collections.abc import Callable

import emulated_world as world
import psutil

from controller.flow import Stage
from testbed.emulation import queues
from testbed.emulation.network import CONTROLLER, MTU, NOBODY
from testbed.emulation.queues import QueueTree
from testbed.fabric import RunProgress
from testbed.job import Job
from testbed.topology import star
from workers.process import in_network_of

Deed = Callable[["Sandbox"], None]
"""What is done to a run."""

_WAIT_S = 30.0
_MODULES = {
    "the controller": "controller.ryu_app",
    "the workers' parent process": "workers.zygote",
}


def micro() -> Job:
    """Five flows of 0.8 s at line rate, one after the other, from two servers to a third."""
    flows = (
        world.flow(f"f{i}", f"h{1 + i % 2}->h3", 2e6, start_s=0.1 + 0.7 * i, stage=Stage.P2D)
        for i in range(5)
    )
    return world.micro_job(*flows, servers=3, mbps=20)


def with_pauses() -> Job:
    """Eight flows of 0.3 s at line rate on one path, with 0.2 s between them, in which its ports are idle."""
    flows = (world.flow(f"f{i}", "h1->h3", 0.75e6, start_s=0.1 + 0.5 * i, stage=Stage.P2D) for i in range(8))
    return world.micro_job(*flows, servers=3, mbps=20)


def serving() -> Job:
    return world.serving_job(star(servers=5, nic_bps=30_000_000))


class Sandbox:
    """The processes of the run that this process has started."""

    def _find(self, fits: Callable[[psutil.Process], bool]) -> psutil.Process:
        """The oldest process that fits; wait until there is one."""
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            found = []
            for process in psutil.Process().children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    if fits(process):
                        found.append((process.create_time(), process.pid, process))
            if found:
                return min(found)[2]
            time.sleep(0.02)
        raise AssertionError("the run has no such process")

    def process_1(self) -> psutil.Process:
        return self._find(lambda p: "testbed.emulation.inside" in p.cmdline() and p.name() != "unshare")

    def named(self, name: str) -> psutil.Process:
        """`ovs-vswitchd`, or `rank 2`."""
        return self._find(lambda p: p.name() == name)

    def module(self, name: str) -> psutil.Process:
        """The Python process that was started with `-m name`; not those forked from it."""
        return self._find(lambda p: name in p.cmdline())

    def server(self, name: str) -> psutil.Process:
        """A process in the network of a server: the shell that Mininet keeps there."""
        return self._find(lambda p: p.cmdline()[-1:] == [f"mininet:{name}"])

    def shell(self, *command: str) -> None:
        """Run a command in the sandbox's network and files."""
        inside = ["nsenter", f"--target={self.process_1().pid}", "--net", "--mount", "--pid", "--"]
        subprocess.run([*inside, *command], check=True, capture_output=True, text=True)


class Injector:
    """A progress callback: when `phase` begins, and `after_s` later, it does the deed in a thread.

    `done_s` is when that was over, on the monotonic clock.
    """

    def __init__(self, deed: Deed, *, phase: str = "running", after_s: float = 0.0) -> None:
        self._deed = deed
        self._phase = phase
        self._after_s = after_s
        self._thread: threading.Thread | None = None
        self.done_s: float | None = None
        self.error: BaseException | None = None

    def __call__(self, progress: RunProgress) -> None:
        if progress.phase == self._phase and self._thread is None:
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def _run(self) -> None:
        try:
            time.sleep(self._after_s)
            self._deed(Sandbox())
            self.done_s = time.monotonic()
        except BaseException as error:
            self.error = error

    def finish(self) -> None:
        """Wait for the deed, and raise what went wrong with it."""
        assert self._thread is not None, f"the run never came to {self._phase!r}"
        self._thread.join()
        if self.error is not None:
            raise self.error


def stop(choose: Callable[[Sandbox], psutil.Process], seconds: float | None = None) -> Deed:
    """Stop a process for `seconds`, or for good."""

    def deed(sandbox: Sandbox) -> None:
        process = choose(sandbox)
        process.send_signal(signal.SIGSTOP)
        if seconds is not None:
            time.sleep(seconds)
            process.send_signal(signal.SIGCONT)

    return deed


def kill(choose: Callable[[Sandbox], psutil.Process]) -> Deed:
    return lambda sandbox: choose(sandbox).send_signal(signal.SIGKILL)


def the(name: str) -> Callable[[Sandbox], psutil.Process]:
    """A process by the name that messages give it."""

    def choose(sandbox: Sandbox) -> psutil.Process:
        if name == "process 1":
            return sandbox.process_1()
        return sandbox.module(_MODULES[name]) if name in _MODULES else sandbox.named(name)

    return choose


def delete_rules(bridge: str) -> Deed:
    return lambda sandbox: sandbox.shell(
        "ovs-ofctl", "-O", "OpenFlow13", "del-flows", f"unix:/dev/shm/run/{bridge}.mgmt"
    )


def cut_off(bridge: str) -> Deed:
    """Let a bridge lose its connection to the controller, and connect again."""

    def deed(sandbox: Sandbox) -> None:
        for controller in (NOBODY, CONTROLLER):
            sandbox.shell("ovs-vsctl", "--db=unix:/dev/shm/run/db.sock", "set-controller", bridge, controller)

    return deed


def let_through(ports: dict[str, float], *, faster: float = 1.0, burst_packets: int = 2) -> Deed:
    """Give the queues of devices other rates or bursts; `ports` has the rate of each, bits/s on the wire. A
    rate is put right again after a second, since a run compares it at its end."""

    def deed(sandbox: Sandbox) -> None:
        def change(times: float) -> None:
            queues.change_rates(
                QueueTree(device=device, line_bps=times * bps, mtu=MTU, burst_packets=burst_packets)
                for device, bps in ports.items()
            )

        with in_network_of(sandbox.process_1().pid):
            change(faster)
            if faster != 1.0:
                time.sleep(1.0)
                change(1.0)

    return deed


def blackhole(device: str) -> Deed:
    """Let a device that has no queues of ours drop all that it should send."""
    return lambda sandbox: sandbox.shell(
        "tc", "qdisc", "add", "dev", device, "root", "tbf", "rate", "8bit", "burst", "10", "limit", "1"
    )


def take_down(device: str, seconds: float | None = None, *, server: str = "") -> Deed:
    """Take a device down for `seconds`, or for good: one of the sandbox, or that of a server."""

    def deed(sandbox: Sandbox) -> None:
        namespace = sandbox.server(server) if server else sandbox.process_1()

        def put(state: str) -> None:
            command = ["ip", "link", "set", "dev", device, state]
            subprocess.run(["nsenter", f"--target={namespace.pid}", "--net", "--", *command], check=True)

        put("down")
        if seconds is not None:
            time.sleep(seconds)
            put("up")

    return deed
