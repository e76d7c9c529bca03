"""The fabric `sim`: any job, on any machine, in simulated time."""

import sys
from collections.abc import Callable

from controller.scheduler import SchedulerError
from testbed.fabric import FabricName, Requirement, RunFailed, RunProgress
from testbed.job import Job
from testbed.record import RunRecord
from testbed.simulation.run import SimulatedRun


class SimulatedFabric:
    name: str = FabricName.SIM

    def requirements(self) -> list[Requirement]:
        """Only Python, which is always there."""
        return [Requirement(name="Python", ok=True, detail=sys.version.split()[0])]

    def run(self, job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
        progress(RunProgress(phase="running"))
        try:
            return SimulatedRun(job, progress).run()
        except SchedulerError as error:
            raise RunFailed(str(error)) from error
