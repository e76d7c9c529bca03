"""A sparse layer over an expert-parallel group: whose visits go where, and what becomes of them."""

from collections.abc import Sequence

import torch

from workers.exchange import Exchange
from workers.model import parts
from workers.model.routing import visited
from workers.model.setup import Decoder
from workers.model.weights import LayerWeights
from workers.plan import Collective


class Visits:
    """The visits of one sparse layer, as member `index` of a group sees them.

    `positions[i]` are the places in their prompts of the tokens of member i. Every member knows them from the
    plan, and a token's place decides which experts it visits, so nothing but hidden states has to be sent.
    Member j has the j-th share of the experts.
    """

    def __init__(
        self,
        decoder: Decoder,
        weights: LayerWeights,
        layer: int,
        hidden: torch.Tensor,
        positions: Sequence[torch.Tensor],
        index: int,
    ) -> None:
        self._decoder = decoder
        self._weights = weights
        self._index = index
        self._each = decoder.experts // len(positions)
        self._experts = [visited(decoder, layer, each).flatten() for each in positions]
        self._own = parts.routed(decoder, weights, layer, hidden, positions[index])
        # What is here: first the inputs of visits, by the member that they come from, then what came of them.
        self._here: list[torch.Tensor] = []

    def dispatch(self, exchange: Exchange, step: Collective) -> None:
        """Send each visit's input to the member that has its expert."""
        inputs = self._own.inputs.repeat_interleave(self._decoder.top_k, 0).to(parts.WIRE)
        out = [inputs[self._goes(self._index, member)] for member in range(len(self._experts))]
        counts = [int(self._goes(member, self._index).sum()) for member in range(len(self._experts))]
        self._here = self._swapped(exchange, step, out, counts)

    def stay(self) -> None:
        """There is nothing to dispatch: the rank has all experts that its tokens visit."""
        self._here = [self._own.inputs.repeat_interleave(self._decoder.top_k, 0)]

    def compute(self) -> None:
        """Let the experts of this rank process what is here."""
        self._here = [
            parts.expert_outputs(
                self._weights,
                inputs.to(torch.float32),
                self._experts[member][self._goes(member, self._index)],
            )
            for member, inputs in enumerate(self._here)
        ]

    def combine(self, exchange: Exchange, step: Collective) -> None:
        """Send what came of each visit back to the member whose token made it."""
        out = [outputs.to(parts.WIRE) for outputs in self._here]
        counts = [int(self._goes(self._index, member).sum()) for member in range(len(self._experts))]
        self._here = self._swapped(exchange, step, out, counts)

    def added(self) -> torch.Tensor:
        """What the layer adds to the hidden states of the rank's own tokens."""
        outputs = torch.empty(len(self._experts[self._index]), self._decoder.hidden)
        for member, back in enumerate(self._here):
            outputs[self._goes(self._index, member)] = back.to(torch.float32)
        shared = parts.shared_output(self._decoder, self._weights, self._own.inputs)
        return parts.weighed(self._own, outputs) + shared

    def _goes(self, member: int, to: int) -> torch.Tensor:
        """Which of a member's visits are to experts of the member `to`."""
        return self._experts[member] // self._each == to

    def _swapped(
        self, exchange: Exchange, step: Collective, out: Sequence[torch.Tensor], counts: Sequence[int]
    ) -> list[torch.Tensor]:
        """Send `out[j]` (visits, hidden) to each member j, and return `counts[i]` rows from each i."""
        hidden = self._decoder.hidden
        for member, rows in enumerate(out):
            if member != self._index:
                parts.check_size(step, step.sizes[self._index][member], rows.nbytes)
        source = torch.cat([rows.flatten() for rows in out])
        receives = [count * hidden for count in counts]
        target = source.new_empty(sum(receives))
        exchange.all_to_all(source, [rows.numel() for rows in out], target, receives)
        return [part.view(-1, hidden) for part in target.split(receives)]
