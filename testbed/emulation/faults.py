"""Does to a running fabric what its scenario asks for, to its links, switches, ranks and controller."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeGuard

import msgspec

from controller.units import NS_PER_S
from testbed.emulation import queues
from testbed.emulation.asked import Asked, Window
from testbed.emulation.links import links_of
from testbed.emulation.network import CONTROLLER, NOBODY, Network
from testbed.emulation.processes import number_of
from testbed.fabric import RunFailed
from testbed.faults import ControllerRestart, Fault, LinkFault, RankPause, SwitchRestart
from testbed.job import Job

_LATER_S = 2.0
"""After the end of a fault, for so long nothing has to move yet."""

_DOWN_SLACK_S = 0.3
"""By how much sooner or later than it was done the kernel may report that a link is down, or up."""


class _Step(msgspec.Struct, frozen=True, kw_only=True):
    """A fault begins or ends, at a model time."""

    time_ns: int
    number: int
    begins: bool


class FaultInjector:
    """A thread that begins and ends the faults of a job, each at its model time.

    Stragglers are not its business: their ranks know when they are slow. A paused rank knows when it was,
    too, so that the compute it was at does not go on meanwhile.
    """

    def __init__(self, job: Job, net: Network) -> None:
        self._net = net
        self._dilation = job.scale.time_dilation
        self._faults = [
            fault for fault in job.faults if isinstance(fault, LinkFault | RankPause | ControllerRestart)
        ]
        self._trees = dict(net.trees)
        self._links = links_of(net)
        self._windows: dict[int, Window] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="faults", daemon=True)
        self._zero_wall_ns = 0
        self.latest_ms = 0.0
        """By how much a fault began or ended later than asked for, in wall milliseconds."""
        self.controller = 0
        """The number of the controller's process. It is set before `start`."""

    def start(self, zero_wall_ns: int) -> None:
        self._zero_wall_ns = zero_wall_ns
        self._thread.start()

    def check(self) -> None:
        """Raise `RunFailed` if a fault could not be done or undone."""
        if self._failure is not None:
            what = f"{type(self._failure).__name__}: {self._failure}"
            raise RunFailed(f"a fault of the scenario could not be made: {what}") from self._failure

    def stop(self) -> None:
        """Do no more. Links stay as they are, ranks and controller go on. Raises as `check` does."""
        self._stop.set()
        self._thread.join()
        for name in self.paused():
            os.kill(number_of(name), signal.SIGCONT)
        if self.controller_away():
            os.kill(self.controller, signal.SIGCONT)
        self.check()

    # --- what was asked for ---------------------------------------------------------------------

    def asked(self) -> list[Asked]:
        """The faults that have begun so far."""
        with self._lock:
            return [Asked(fault=self._faults[i], window=window) for i, window in self._windows.items()]

    def outages(self, link: str) -> list[Window]:
        """When the link of that name (`links_of`) was asked to be down, with some slack."""
        found = []
        for one in self.asked():
            fault = one.fault
            if _is_down(fault) and link in {self._links[self._net.devices[port]] for port in fault.ports}:
                found.append(one.window.wider(_DOWN_SLACK_S, _DOWN_SLACK_S))
        return found

    def paused(self) -> list[str]:
        """The ranks that are paused now, by the names of their processes."""
        return [
            f"rank {one.fault.rank}"
            for one in self.asked()
            if isinstance(one.fault, RankPause) and one.window.end_ns is None
        ]

    def stopped(self) -> list[str]:
        """The processes that are stopped now, as asked for, by their names."""
        return [*self.paused(), *(["the controller"] if self.controller_away() else [])]

    def controller_away(self) -> bool:
        return any(
            isinstance(one.fault, ControllerRestart) and one.window.end_ns is None for one in self.asked()
        )

    def holds_up(self) -> bool:
        """Whether a fault that ends may be why nothing moves now."""
        now_ns = time.monotonic_ns()
        return any(
            one.fault.to_ns is not None and one.window.wider(0.0, _LATER_S).overlaps(now_ns, now_ns + 1)
            for one in self.asked()
        )

    def for_good(self) -> list[str]:
        """The links that are down now and will stay so, in words."""
        return [one.fault.words for one in self.asked() if _is_down(one.fault) and one.fault.to_ns is None]

    # --- doing it -------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            for step in self._steps():
                due_ns = self._zero_wall_ns + round(step.time_ns * self._dilation)
                if self._stop.wait(max(0.0, (due_ns - time.monotonic_ns()) / NS_PER_S)):
                    return
                self._do(step, self._faults[step.number])
                self.latest_ms = max(self.latest_ms, (time.monotonic_ns() - due_ns) / 1e6)
        except BaseException as error:
            self._failure = error

    def _steps(self) -> list[_Step]:
        """All steps in order; at one moment, ends come before begins."""
        begins = [_Step(time_ns=fault.from_ns, number=i, begins=True) for i, fault in enumerate(self._faults)]
        ends = [
            _Step(time_ns=fault.to_ns, number=i, begins=False)
            for i, fault in enumerate(self._faults)
            if fault.to_ns is not None
        ]
        return sorted([*begins, *ends], key=lambda step: (step.time_ns, step.begins, step.number))

    def _do(self, step: _Step, fault: LinkFault | RankPause | ControllerRestart) -> None:
        change: Callable[[bool], None]
        match fault:
            case RankPause():
                change = partial(_pause, number_of(f"rank {fault.rank}"))
            case ControllerRestart():
                change = self._restart_controller
            case SwitchRestart():
                change = partial(self._restart_switch, fault)
            case LinkFault():
                change = partial(self._change_link, fault)
        if step.begins:
            with self._lock:
                self._windows[step.number] = Window(begin_ns=time.monotonic_ns())
            change(True)
        else:
            change(False)
            with self._lock:
                begun = self._windows[step.number]
                self._windows[step.number] = msgspec.structs.replace(begun, end_ns=time.monotonic_ns())

    def _change_link(self, fault: LinkFault, begins: bool) -> None:
        if fault.share == 0:
            self._take_down(fault, begins)
        else:
            self._set_rates(fault, begins)

    def _take_down(self, fault: LinkFault, begins: bool) -> None:
        """Take a link down, or up again. What is in its queues is lost."""
        _set_links([self._net.devices[fault.ports[0]]], begins)

    def _restart_switch(self, fault: SwitchRestart, begins: bool) -> None:
        """Take all links of a switch down, and its rules from it; or let it have both again.

        Open vSwitch takes the rules from a bridge that no longer has a controller.
        """
        own = f"{fault.switch}->"
        links = [self._net.devices[port] for port in fault.ports if port.startswith(own)]
        if begins:
            _set_links(links, True)
            _run("ovs-vsctl", "del-controller", fault.switch)
        else:
            _set_links(links, False)
            _run("ovs-vsctl", "set-controller", fault.switch, CONTROLLER)

    def _restart_controller(self, begins: bool) -> None:
        """Stop the controller and take it from the bridges, or give it back.

        Bridges that look for another controller keep their rules. Those that get this one connect at once,
        and get all rules anew.
        """
        if begins:
            os.kill(self.controller, signal.SIGSTOP)
            self._let_bridges_look_for(NOBODY)
        else:
            os.kill(self.controller, signal.SIGCONT)
            self._let_bridges_look_for(CONTROLLER)

    def _let_bridges_look_for(self, controller: str) -> None:
        commands = [("--", "set-controller", bridge, controller) for bridge in self._net.wiring.bridges]
        _run("ovs-vsctl", *(word for command in commands for word in command))

    def _set_rates(self, fault: LinkFault, begins: bool) -> None:
        """Give the ports of a link another rate, and read it back."""
        trees = [self._trees[port] for port in fault.ports]
        if begins:
            trees = [msgspec.structs.replace(tree, line_bps=tree.line_bps * fault.share) for tree in trees]
        queues.change_rates(trees)
        queues.read_back(trees)
        self._net.trees.update(zip(fault.ports, trees, strict=True))


def _pause(process: int, begins: bool) -> None:
    os.kill(process, signal.SIGSTOP if begins else signal.SIGCONT)


def _set_links(devices: Iterable[str], down: bool) -> None:
    lines = [f"link set dev {device} {'down' if down else 'up'}\n" for device in devices]
    _run("ip", "-batch", "-", given="".join(lines))


def _run(*command: str, given: str = "") -> None:
    done = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _is_down(fault: Fault) -> TypeGuard[LinkFault]:
    return isinstance(fault, LinkFault) and fault.share == 0
