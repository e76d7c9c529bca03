"""The actions of a conductor: what it asks a fabric to do. Plain data; a fabric carries them out in order."""

from collections.abc import Sequence
from typing import NamedTuple

from controller.flow import Batch, Transfer
from testbed.job import MicroFlow
from workers.plan import BatchPlan, FetchPlan


class Announce(NamedTuple):
    """Announce `batch` to the scheduler, and call `known(batch.id)` once it has taken the batch in.

    So no rank submits a flow of a batch that the scheduler does not know. `ranks` will report the layers of
    the batch; if there are none, `AtLayer` does. With `fetch`, the batch stands for a fetch plan, for which
    no rank computes.
    """

    batch: Batch
    ranks: tuple[int, ...]
    fetch: bool = False


class Expect(NamedTuple):
    """Let the receivers of the plan's flows expect them, before any is sent."""

    plan: BatchPlan | FetchPlan


class Post(NamedTuple):
    """Let each sender post its own of these transfers now."""

    transfers: tuple[Transfer, ...]


class PostTimed(NamedTuple):
    """Let each sender post its own of these flows, each at its start."""

    flows: tuple[MicroFlow, ...]


class Run(NamedTuple):
    """Let the plan's ranks begin the batch, or queue it behind those they have."""

    plan: BatchPlan


class GoOn(NamedTuple):
    """Let the plan's ranks, which have paused, go on with the batch."""

    plan: BatchPlan


class AtLayer(NamedTuple):
    """The batches are at `layer` now, because their slowest rank is.

    The fabric reports this to the scheduler, unless the ranks of the batches report their layers to it.
    """

    batches: tuple[str, ...]
    layer: int


Action = Announce | Expect | Post | PostTimed | Run | GoOn | AtLayer
Actions = Sequence[Action]
