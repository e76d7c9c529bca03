"""The whole model in one process: what a request's KV and first token have to be."""

from typing import NamedTuple

import torch

from workers.model import parts
from workers.model.setup import Decoder, whole
from workers.model.weights import LayerWeights, Weights


class Prefilled(NamedTuple):
    """The KV (layers, 2, kv heads, tokens, d) of a prompt, and the logits of the token after it."""

    kv: torch.Tensor
    logits: torch.Tensor


class WholeModel:
    """A decoder with all of its weights."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._weights = Weights(decoder, whole(decoder))

    def prefill(self, tokens: torch.Tensor) -> Prefilled:
        """Compute a whole prompt at once."""
        positions = torch.arange(len(tokens))
        hidden = self._weights.embedding[tokens]
        kv: list[torch.Tensor] = []
        for number in range(self._decoder.layers):
            layer = self._weights.layer(number)
            kv.append(parts.new_kv(self._decoder, layer, hidden, positions))
            hidden = self._through(number, layer, hidden, positions, kv[-1])
        return Prefilled(torch.stack(kv), parts.logits(self._weights, hidden[-1]))

    def next_logits(self, token: int, position: int, kv: torch.Tensor) -> torch.Tensor:
        """The logits of the token after `position`, at which `token` is.

        `kv` (layers, 2, kv heads, position + 1, d) is the KV of all tokens so far, that of `token` included.
        """
        positions = torch.tensor([position])
        hidden = self._weights.embedding[[token]]
        for number in range(self._decoder.layers):
            hidden = self._through(number, self._weights.layer(number), hidden, positions, kv[number])
        return parts.logits(self._weights, hidden[-1])

    def _through(
        self,
        number: int,
        layer: LayerWeights,
        hidden: torch.Tensor,
        positions: torch.Tensor,
        kv: torch.Tensor,
    ) -> torch.Tensor:
        """The hidden states after a layer."""
        decoder = self._decoder
        hidden = hidden + parts.attention(decoder, layer, hidden, positions, kv)
        if not decoder.sparse(number):
            return hidden + parts.mlp(layer, hidden)
        chosen = parts.routed(decoder, layer, number, hidden, positions)
        inputs = chosen.inputs.repeat_interleave(decoder.top_k, 0)
        outputs = parts.expert_outputs(layer, inputs, chosen.experts.flatten())
        added = parts.weighed(chosen, outputs) + parts.shared_output(decoder, layer, chosen.inputs)
        return hidden + added
