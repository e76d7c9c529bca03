"""Which conductor a job has."""

from testbed.job import Job
from testbed.serving.conductor import Conductor, ServingConductor
from testbed.serving.micro import MicroConductor
from testbed.serving.routing.decode_workers import Busy


def conductor_of(job: Job, busy: Busy | None = None) -> Conductor:
    """Return the conductor that a fabric drives for `job`: of its flows if it has any, or of its requests.

    `busy` says how long a port takes for what flows have left on it now, if the fabric knows.
    """
    return MicroConductor(job) if job.flows else ServingConductor(job, busy)
