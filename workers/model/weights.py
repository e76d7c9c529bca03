"""The weights of a shard. Each is cut out of a matrix of the whole model, which follows from the seed."""

from functools import cached_property

import torch

from workers.model.seeds import VOCABULARY, matrix
from workers.model.setup import Decoder, Shard

_SHARPNESS = 2.0
"""Queries are so many times as long as keys. With random weights of one length, attention would be almost a
mean over all tokens, and a wrong token would hardly change it."""

Feed = tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]
"""The matrices of a feed-forward: gate (None without one), up and down."""


class LayerWeights:
    """The weights of one layer that `shard` has; those of its feed-forward are made when they are first used.

    `query`, `key` and `value` map a hidden state to the heads of the shard, and `output` maps these back. The
    sum of what all shards' `output` and `mlp` give is what the whole layer gives.
    """

    def __init__(self, decoder: Decoder, shard: Shard, layer: int) -> None:
        self._decoder = decoder
        self._shard = shard
        self._name = f"{decoder.seed} layer {layer}"
        kv, width = shard.share(decoder.kv_heads), decoder.head_dim
        queries = decoder.q_heads // decoder.kv_heads * width
        mine = slice(kv.start * queries, kv.stop * queries)
        kept = slice(kv.start * width, kv.stop * width)
        self.query = _SHARPNESS * self._matrix("query", decoder.q_heads * width, decoder.hidden)[mine]
        self.key = self._matrix("key", decoder.kv_heads * width, decoder.hidden)[kept]
        self.value = self._matrix("value", decoder.kv_heads * width, decoder.hidden)[kept]
        self.output = self._matrix("output", decoder.hidden, decoder.q_heads * width)[:, mine]
        self._experts: dict[int, Feed] = {}

    @cached_property
    def mlp(self) -> Feed:
        """The shard's share of the width of the MLP of a dense layer."""
        share = self._shard.share(self._decoder.ffn)
        gate, up, down = self._feed("mlp", self._decoder.ffn)
        mine = slice(share.start, share.stop)
        return None if gate is None else gate[mine], up[mine], down[:, mine]

    @cached_property
    def router(self) -> torch.Tensor:
        """The gate of a sparse layer, which says how much the visit of an expert counts."""
        return self._matrix("router", self._decoder.experts, self._decoder.hidden)

    @cached_property
    def shared(self) -> Feed:
        """The shared expert. Every shard has all of it."""
        return self._feed("shared", self._decoder.shared_ffn)

    def expert(self, number: int) -> Feed:
        """A routed expert of the shard. Raises `ValueError` for one that it does not have."""
        first, end = self._shard.experts
        if not first <= number < end:
            raise ValueError(
                f"expert {number} is on another rank: this one has those from {first} to {end - 1}"
            )
        if number not in self._experts:
            self._experts[number] = self._feed(f"expert {number}", self._decoder.expert_ffn)
        return self._experts[number]

    def prepare(self, *, sparse: bool) -> None:
        """Make everything now that a sparse or a dense layer needs."""
        if not sparse:
            assert self.mlp is not None
            return
        assert self.router is not None
        assert self.shared is not None
        for number in range(*self._shard.experts):
            self.expert(number)

    def _feed(self, name: str, width: int) -> Feed:
        hidden = self._decoder.hidden
        gate = self._matrix(f"{name} gate", width, hidden) if self._decoder.gated else None
        return gate, self._matrix(f"{name} up", width, hidden), self._matrix(f"{name} down", hidden, width)

    def _matrix(self, name: str, rows: int, columns: int) -> torch.Tensor:
        return matrix(f"{self._name} {name}", rows, columns)


class Weights:
    """All weights of a shard, each made when it is first used, or all of them by `prepare`."""

    def __init__(self, decoder: Decoder, shard: Shard) -> None:
        self._decoder = decoder
        self._shard = shard
        self._layers: dict[int, LayerWeights] = {}

    def prepare(self) -> None:
        """Make everything now."""
        for number in self._shard.layers:
            self.layer(number).prepare(sparse=self._decoder.sparse(number))
        assert self.embedding is not None
        assert self.logits is not None

    def layer(self, number: int) -> LayerWeights:
        if number not in self._layers:
            self._layers[number] = LayerWeights(self._decoder, self._shard, number)
        return self._layers[number]

    @cached_property
    def embedding(self) -> torch.Tensor:
        """A hidden state of magnitude 1 for each token."""
        return matrix(f"{self._decoder.seed} embedding", VOCABULARY, self._decoder.hidden) * (
            self._decoder.hidden**0.5
        )

    @cached_property
    def logits(self) -> torch.Tensor:
        """Maps a hidden state to a logit of magnitude 1 for each token."""
        return matrix(f"{self._decoder.seed} logits", VOCABULARY, self._decoder.hidden)
