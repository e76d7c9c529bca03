"""Order by the factors of a model: the earlier batch first, then by stage, then the lower layer.

What is known of Hermod, and our choices where that is little: docs/policies/hermod.md.
"""

import math

from controller.flow import Stage
from controller.parts.ordered import Ordered, OrderedOptions
from controller.policies.registry import register
from controller.policy import UNCHANGED, Verdict, Verdicts
from controller.view import ActiveBatch, ActiveFlow, View

# A key is a batch's number, then 2 bits of stage, then 16 bits of layer. It is exact for 2 ** 35 batches.
_LAYERS = 2**16
_BATCH = 4 * _LAYERS
_RANKS = {Stage.COLLECTIVE: 0, Stage.KV_REUSE: 1, Stage.P2D: 2}


@register
class Hermod(Ordered):
    name = "hermod"
    summary = "the earlier batch first, then S2, S1, S3, then the lower layer"
    ahead = "was ahead"
    reads_ports = False
    reads_progress = False

    def __init__(self, options: OrderedOptions) -> None:
        super().__init__(options)
        self._started = 0
        self._numbers: dict[str, int] = {}  # of active batches, in order of arrival
        self._oldest = 0

    def key(self, now_ns: int, flow: ActiveFlow, view: View) -> float:
        if flow.batch is None or flow.flow.stage is Stage.BACKGROUND:
            return math.inf
        layer = min(flow.flow.layer or 0, _LAYERS - 1)
        return self._numbers[flow.batch.batch.id] * _BATCH + _RANKS[flow.flow.stage] * _LAYERS + layer

    def value(self, now_ns: int, key: float) -> float:
        """The key as counted from the oldest active batch: numbers of batches only grow."""
        return key - self._oldest * _BATCH

    def words(self, now_ns: int, flow: ActiveFlow, key: float) -> str:
        if flow.flow.stage is Stage.BACKGROUND:
            return "no batch waits for it"
        if flow.batch is None:
            return "of no batch"
        behind = self._numbers[flow.batch.batch.id] - self._oldest
        where = "the oldest batch" if behind == 0 else f"{behind} after the oldest batch"
        return f"{where}, {flow.flow.stage.value}, layer {flow.flow.layer or 0}"

    def on_batch(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        self._numbers[batch.batch.id] = self._started
        self._started += 1
        self._oldest = next(iter(self._numbers.values()))
        return UNCHANGED

    def on_departure(self, now_ns: int, batch: ActiveBatch, view: View) -> Verdicts:
        del self._numbers[batch.batch.id]
        oldest = next(iter(self._numbers.values()), self._started)
        if oldest == self._oldest:
            return UNCHANGED
        self._oldest = oldest
        # In exact order on all ports, nothing is in a band.
        moved = self._bands.reband(oldest * _BATCH)
        verdicts: dict[str, Verdict] = {}
        for name, level in moved.items():
            key = self._bands.key(name)
            words = self.words(now_ns, view.flows[name], key) + self._rank_words(self.value(now_ns, key))
            verdicts[name] = Verdict(level, words, order=key)
        return verdicts
