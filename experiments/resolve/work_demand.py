"""What requests take of the cluster of a job."""

from collections.abc import Sequence

from testbed.job import Job, Request
from testbed.serving.capacity import Demand, demand_of
from testbed.serving.plans.steps import step_options


def demand(job: Job, requests: Sequence[Request]) -> Demand:
    """Return what the mean of these requests takes, at least, of the cluster of `job`."""
    return demand_of(
        requests,
        placement=job.placement,
        model=job.model,
        gpu=job.gpu,
        topology=job.topology,
        max_batch_tokens=job.serving.max_batch_tokens,
        options=step_options(job),
    )
