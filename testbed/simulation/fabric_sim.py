"""The fabric `sim`: any job, on any machine, in simulated time."""

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from controller.compiled import digest_of
from controller.verdict_checks import SchedulerError
from testbed.advice import set_up_again
from testbed.fabric import FabricName, FabricUnavailable, Requirement, RunFailed, RunProgress
from testbed.job import Job
from testbed.record import RunRecord
from testbed.simulation._core import SOURCES
from testbed.simulation.run import SimulatedRun

_ROOT = Path(__file__).parents[2]
_FOLDERS = ("testbed/simulation/core", "controller/core")


@cache
def _sources_here() -> str:
    """Read once, because files may change while a process runs."""
    return digest_of(_ROOT, _FOLDERS)


class SimulatedFabric:
    name: str = FabricName.SIM

    def requirements(self) -> list[Requirement]:
        """Python, which is always there, and a compiled core that is no older than its sources."""
        built = _sources_here() == SOURCES
        return [
            Requirement(name="Python", ok=True, detail=sys.version.split()[0]),
            Requirement(
                name="compiled core",
                ok=built,
                detail="built from the sources here" if built else "built from other sources than those here",
                fix="" if built else set_up_again(),
            ),
        ]

    def run(self, job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
        missing = [requirement for requirement in self.requirements() if not requirement.ok]
        if missing:
            raise FabricUnavailable(self.name, missing)
        progress(RunProgress(phase="running"))
        try:
            return SimulatedRun(job, progress).run()
        except SchedulerError as error:
            raise RunFailed(str(error)) from error
