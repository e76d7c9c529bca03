"""Faults that a scenario asks for: what goes wrong with the cluster, and when. Plain data and small rules.

Times are model nanoseconds from the start of the run. `to_ns` is None for a fault that lasts to its end.
`place` names what a fault strikes, and `words` what happens to it. docs/concepts/faults.md says what each
does to requests and flows.
"""

import math
from collections.abc import Iterable

import msgspec

from controller.flow import PortId
from controller.units import NS_PER_S
from workers.slowdown import Slowdown


class LinkFault(msgspec.Struct, frozen=True, kw_only=True, tag="link"):
    """`ports` carry `share` of their rate; 0: nothing passes. `link` is what the scenario calls them."""

    link: str
    ports: tuple[PortId, ...]
    share: float
    from_ns: int
    to_ns: int | None

    @property
    def place(self) -> str:
        return f"link {self.link}"

    @property
    def words(self) -> str:
        return f"{self.place} {'down' if self.share == 0 else f'at {self.share:.4g} of its rate'}"


class SwitchRestart(LinkFault, frozen=True, kw_only=True, tag="switch"):
    """A switch restarts: `ports` are those of all its links, nothing passes them, and its rules are lost.

    A restart ends, so `to_ns` is not None.
    """

    switch: str

    @property
    def place(self) -> str:
        return f"switch {self.switch}"

    @property
    def words(self) -> str:
        return f"{self.place} restarting"


class ControllerRestart(msgspec.Struct, frozen=True, kw_only=True, tag="controller"):
    """The controller is away and without its switches. It comes back with what it knew.

    A restart ends, so `to_ns` is not None.
    """

    from_ns: int
    to_ns: int

    @property
    def place(self) -> str:
        return "the controller"

    @property
    def words(self) -> str:
        return f"{self.place} restarting"


class Straggler(msgspec.Struct, frozen=True, kw_only=True, tag="straggler"):
    """Compute on `rank` takes `factor` times as long."""

    rank: int
    factor: float
    from_ns: int
    to_ns: int | None

    @property
    def place(self) -> str:
        return f"rank {self.rank}"

    @property
    def words(self) -> str:
        return f"{self.place} computing {self.factor:.4g} times as long"


class RankPause(msgspec.Struct, frozen=True, kw_only=True, tag="pause"):
    """`rank` does nothing. A pause ends, so `to_ns` is not None."""

    rank: int
    from_ns: int
    to_ns: int

    @property
    def place(self) -> str:
        return f"rank {self.rank}"

    @property
    def words(self) -> str:
        return f"{self.place} paused"


class UnitLoss(msgspec.Struct, frozen=True, kw_only=True, tag="unit"):
    """The prefill unit `unit` is lost, with its KV."""

    unit: str
    from_ns: int
    to_ns: int | None

    @property
    def place(self) -> str:
        return f"unit {self.unit}"

    @property
    def words(self) -> str:
        return f"{self.place} lost"


class DecodeLoss(msgspec.Struct, frozen=True, kw_only=True, tag="decode"):
    """A decode worker, by its number from 0, is lost."""

    worker: int
    from_ns: int
    to_ns: int | None

    @property
    def place(self) -> str:
        return f"decode worker {self.worker}"

    @property
    def words(self) -> str:
        return f"{self.place} lost"


Loss = UnitLoss | DecodeLoss
Fault = LinkFault | SwitchRestart | ControllerRestart | Straggler | RankPause | UnitLoss | DecodeLoss


def losses_of(faults: Iterable[Fault]) -> tuple[Loss, ...]:
    return tuple(fault for fault in faults if isinstance(fault, UnitLoss | DecodeLoss))


def slowdowns_of(faults: Iterable[Fault], rank: int) -> tuple[Slowdown, ...]:
    """The slowdowns of a rank in order of time, as `workers.slowdown.ends_ns` takes them."""
    found = [
        Slowdown(
            from_ns=fault.from_ns,
            to_ns=fault.to_ns,
            factor=fault.factor if isinstance(fault, Straggler) else math.inf,
        )
        for fault in faults
        if isinstance(fault, Straggler | RankPause) and fault.rank == rank
    ]
    return tuple(sorted(found, key=lambda slow: slow.from_ns))


def in_force(fault: Fault, time_ns: int) -> bool:
    return fault.from_ns <= time_ns and (fault.to_ns is None or time_ns < fault.to_ns)


def meets(fault: Fault, start_ns: int, end_ns: int) -> bool:
    """Whether the fault was in force at some time between `start_ns` and `end_ns`."""
    return fault.from_ns < end_ns and (fault.to_ns is None or start_ns < fault.to_ns)


def when(fault: Fault) -> str:
    """The time of a fault in words: "from 1 s to 2 s", "from 1 s on"."""
    begin = f"from {fault.from_ns / NS_PER_S:.6g} s"
    return f"{begin} on" if fault.to_ns is None else f"{begin} to {fault.to_ns / NS_PER_S:.6g} s"
