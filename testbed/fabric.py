"""The interface of a fabric: it checks whether it can run on this machine, and runs a job."""

import enum
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from testbed.live import LiveState

if TYPE_CHECKING:  # The `mfs` command needs the names of fabrics for its help, and neither of these.
    from testbed.job import Job
    from testbed.record import RunRecord


class FabricName(enum.StrEnum):
    """The names of the fabrics in a scenario."""

    MININET = "mininet"
    SIM = "sim"
    CLUSTER = "cluster"


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a fabric uses, and whether this machine has it.

    `fix` is the command that provides it, if there is one. A fabric can run without what is not `needed`.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = True


class RunProgress(msgspec.Struct, frozen=True, kw_only=True):
    """Progress of a run: its phase in words, `done` of `total` requests (or flows), wall seconds so far.

    `live` is more about it, for those who watch; None if the fabric has nothing new to say.
    """

    phase: str
    done: int = 0
    total: int = 0
    wall_s: float = 0.0
    live: LiveState | None = None


class FabricUnavailable(Exception):
    """The fabric cannot run on this machine. `missing` holds the requirements that are not met."""

    def __init__(self, fabric: str, missing: list[Requirement]) -> None:
        self.fabric = str(fabric)
        self.missing = missing
        super().__init__(f"the fabric {self.fabric!r} cannot run here")


class JobRefused(ValueError):
    """The job is valid, but this fabric cannot run it here, or not on the servers of the inventory.

    The message names the limit and the key to change.
    """


class NotOnThisMachine(JobRefused):
    """This machine is the reason why the job cannot run here, so the simulated fabric can run it."""


class RunFailed(RuntimeError):
    """The run started and failed. The message says what happened and may quote the last log lines."""


class Fabric(Protocol):
    name: str

    def requirements(self) -> Sequence[Requirement]:
        """Return what the fabric needs on this machine, met or not. Cheap, and changes nothing."""
        ...

    def run(self, job: "Job", progress: Callable[[RunProgress], None]) -> "RunRecord":
        """Run `job` to its end and return its record.

        Raises `FabricUnavailable`, `JobRefused` or `RunFailed`.
        """
        ...
