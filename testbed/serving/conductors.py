"""Which conductor a job has."""

from testbed.job import Job
from testbed.serving.conductor import Conductor, ServingConductor
from testbed.serving.micro import MicroConductor


def conductor_of(job: Job) -> Conductor:
    """Return the conductor that a fabric drives for `job`: of its flows if it has any, or of its requests."""
    return MicroConductor(job) if job.flows else ServingConductor(job)
