"""The micro workload: flows posted at given times, and batches that consist of the flows that name them."""

from collections.abc import Iterable

from controller.flow import Batch, BatchRequest, Stage, Transfer
from testbed.job import Job
from testbed.serving.actions import Actions, Announce, AtLayer, PostTimed
from testbed.serving.conductor import Conductor


class MicroBatches:
    """The batches of a micro workload, and the layers they are at.

    Nothing is computed between the flows. So a batch is at the lowest layer of its S1 and S2 flows that
    have not arrived, and its compute is over when all have. `batches` are the batches that flows name, with
    the deadlines of their flows, and with layers up to the highest that a flow names.
    """

    def __init__(self, transfers: Iterable[Transfer]) -> None:
        members: dict[str, list[Transfer]] = {}
        for transfer in transfers:
            if transfer.batch is not None:
                members.setdefault(transfer.batch, []).append(transfer)
        self.batches = tuple(
            Batch(
                id=name,
                layers=max(t.layer or 0 for t in flows) + 1,
                requests=tuple(
                    BatchRequest(id=t.id, deadline_ns=t.deadline_ns)
                    for t in flows
                    if t.deadline_ns is not None
                ),
            )
            for name, flows in members.items()
        )
        self._layers = {batch.id: batch.layers for batch in self.batches}
        self._missing = {
            name: {t.id: t.layer or 0 for t in flows if t.stage is not Stage.P2D}
            for name, flows in members.items()
        }

    def layer(self, batch: str) -> int:
        """The layer that the batch is at; its number of layers when its compute is over."""
        return min(self._missing[batch].values(), default=self._layers[batch])

    def arrived(self, transfer: Transfer) -> int | None:
        """`transfer` has arrived. Returns the layer that its batch moves to, None if it does not move."""
        if transfer.batch is None:
            return None
        before = self.layer(transfer.batch)
        self._missing[transfer.batch].pop(transfer.id, None)
        after = self.layer(transfer.batch)
        return None if after == before else after


class MicroConductor(Conductor):
    """Posts every flow at its time, once the scheduler knows all batches; done when all have arrived."""

    def __init__(self, job: Job) -> None:
        self._flows = tuple(sorted(job.flows, key=lambda flow: flow.start_ns))
        self._on_their_way = {flow.transfer.id: flow.transfer for flow in self._flows}
        self._batches = MicroBatches(flow.transfer for flow in job.flows)
        self._unknown = {batch.id for batch in self._batches.batches}
        self.total = len(self._flows)

    @property
    def done(self) -> int:
        return self.total - len(self._on_their_way)

    def begin(self) -> Actions:
        if not self._unknown:
            return (PostTimed(self._flows),)
        return [Announce(batch, ()) for batch in self._batches.batches]

    def known(self, batch: str) -> Actions:
        self._unknown.remove(batch)
        self.steps += 1
        at = AtLayer((batch,), self._batches.layer(batch))
        return (at,) if self._unknown else (at, PostTimed(self._flows))

    def arrived(self, flow: str) -> Actions:
        transfer = self._on_their_way.pop(flow)
        self.steps += 1
        layer = self._batches.arrived(transfer)
        if transfer.batch is None or layer is None:
            return ()
        return (AtLayer((transfer.batch,), layer),)

    def describe(self) -> str:
        first = ", ".join(sorted(self._on_their_way)[:10])
        return f"{self.done} of {self.total} done; still on their way: {first}"
