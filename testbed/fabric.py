"""What a fabric is: something that says whether it can work here, and runs a job."""

from collections.abc import Callable
from typing import Protocol

import msgspec

from testbed.job import Job
from testbed.record import RunRecord


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """One thing this machine has or lacks. `fix` is the command that provides it, where there is one."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = True


class RunProgress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a run is: `done` of `total` requests (or flows), after `wall_s`, in words."""

    phase: str
    done: int = 0
    total: int = 0
    wall_s: float = 0.0


class FabricUnavailable(Exception):
    """The fabric cannot work on this machine. `missing` are the requirements that are not met."""

    def __init__(self, fabric: str, missing: list[Requirement]) -> None:
        self.fabric = fabric
        self.missing = missing
        super().__init__(f"the fabric {fabric!r} cannot run here")


class JobRefused(ValueError):
    """The job is valid but not for this machine (too many ranks, links too fast): says which limit."""


class RunFailed(RuntimeError):
    """The run started and did not end well. The message says what happened and where the logs are."""


class Fabric(Protocol):
    name: str

    def requirements(self) -> list[Requirement]:
        """What the fabric needs on this machine, met or not. Cheap; changes nothing."""
        ...

    def run(self, job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
        """Run `job` to its end.

        Raises `FabricUnavailable`, `JobRefused` or `RunFailed`.
        """
        ...
