"""What policies with stages share about S1 and S2: how far ahead S1 is, which flows wait, and their order."""

from collections.abc import Mapping

from controller.urgency import rli
from controller.view import ActiveBatch, ActiveFlow

# Orders below 2 ** 53 are exact as floats: enough for RLIs below 256 and REDs up to 9.7 hours.
_RLI_STEP = 2**45
_LAST_RED_NS = _RLI_STEP - 1
AFTER_EARLY = 2.0**53
"""An order behind that of all S1 and S2."""


def layers_ahead(flow: ActiveFlow) -> int:
    """The RLI of an S1 flow: layers until it is needed, counted from layer 0 if it has no batch."""
    return rli(target_layer(flow), 0 if flow.batch is None else flow.batch.layer)


def target_layer(flow: ActiveFlow) -> int:
    """The layer that needs an S1 flow. A flow that names none is assumed to hold up compute now."""
    return 0 if flow.flow.layer is None else flow.flow.layer


def early_order(batch: ActiveBatch | None, ahead: int, *, red: bool = True) -> float:
    """The exact order of S1 and S2: by RLI, then by RED unless that is off. Smaller ones go first."""
    if not red:
        return ahead * _RLI_STEP
    red_ns = None if batch is None else batch.red_ns
    return ahead * _RLI_STEP + (_LAST_RED_NS if red_ns is None else min(red_ns, _LAST_RED_NS))


class WaitingS1:
    """The active S1 flows that belong to a batch, by batch and layer. Memory: an entry per flow."""

    def __init__(self) -> None:
        self._batches: dict[str, dict[int, dict[str, ActiveFlow]]] = {}

    def add(self, flow: ActiveFlow) -> None:
        """Flows without a batch are left out: nothing will ever change how far ahead they are."""
        if flow.batch is not None:
            layers = self._batches.setdefault(flow.batch.batch.id, {})
            layers.setdefault(target_layer(flow), {})[flow.flow.id] = flow

    def remove(self, flow: ActiveFlow) -> None:
        if flow.batch is None:
            return
        layers = self._batches[flow.batch.batch.id]
        layer = target_layer(flow)
        del layers[layer][flow.flow.id]
        if not layers[layer]:
            del layers[layer]
        if not layers:
            del self._batches[flow.batch.batch.id]

    def of_batch(self, batch: ActiveBatch) -> Mapping[int, Mapping[str, ActiveFlow]]:
        """Layer -> id -> flow."""
        return self._batches.get(batch.batch.id, {})
