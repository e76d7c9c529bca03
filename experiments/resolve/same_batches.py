"""The same batches for all policies: those that one of them forms.

Which requests share a batch depends on when earlier batches end, and so on the policy. That can move a result
by more than the links do. With the batches given, what is left is the work of the links.
"""

from typing import Final

import msgspec

from controller.spec import read_spec
from experiments.errors import UserError
from testbed.job import Collect, Job
from testbed.serving.replay import NotReplayable, plans_of
from testbed.simulation.fabric_sim import SimulatedFabric

KEY: Final = "serving.batches_of"


def with_batches_of(policy: str, job: Job, policies: tuple[str, ...]) -> Job:
    """Return `job` with the batches as plans that its units form under `policy` on the simulated fabric.

    Raises `UserError` for request control, in `policy` or any of `policies`, which decides on batches itself,
    and if the batches cannot be made again.
    """
    defaults = job.scheduler.defaults()
    for spec in (policy, *policies):
        if read_spec(spec, **defaults).control is not None:
            raise UserError(f"{KEY}: {spec} decides on requests itself, so its batches are its own")
    reference = msgspec.structs.replace(job, policy=policy, control=None, collect=Collect.SUMMARY)
    record = SimulatedFabric().run(reference, lambda state: None)
    try:
        return msgspec.structs.replace(job, plans=plans_of(reference, record.requests))
    except NotReplayable as error:
        raise UserError(f"{KEY}: the batches of {policy} cannot be formed again: {error}") from None


def batches_note(policy: str) -> str:
    return (
        f"every policy runs the batches that {policy} forms on the simulated fabric ({KEY}): the differences"
        f" are those of the links alone"
    )
