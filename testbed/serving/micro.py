"""Batches of the micro workload, which are nothing but the flows that name them."""

from collections.abc import Iterable

from controller.flow import Batch, BatchRequest, Stage, Transfer


class MicroBatches:
    """There is no compute between the flows of a micro workload: a batch is at the lowest layer for which
    an S1 or S2 flow is still missing, and its compute is over when none is.

    `batches` are those that flows name, known by their flows' deadlines and highest layer.
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
        """The layer the batch is at."""
        return min(self._missing[batch].values(), default=self._layers[batch])

    def arrived(self, transfer: Transfer) -> int | None:
        """`transfer` is through; the layer its batch is at now, None if it was there before."""
        if transfer.batch is None:
            return None
        before = self.layer(transfer.batch)
        self._missing[transfer.batch].pop(transfer.id, None)
        after = self.layer(transfer.batch)
        return None if after == before else after
