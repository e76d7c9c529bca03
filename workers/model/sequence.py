"""Attention of ranks that divide the tokens of a prompt: in a ring, or by heads (Ulysses)."""

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

import msgspec
import torch
from torch.nn import functional

from workers.exchange import Exchange
from workers.model import parts
from workers.model.kv import KvStore
from workers.model.layers import PartialAttention, merged
from workers.model.setup import Decoder, Shard
from workers.model.weights import LayerWeights
from workers.plan import Collective


class Segment(NamedTuple):
    """The tokens from `begin` to `end` of a prompt, which a batch computes on one replica."""

    request: int
    begin: int
    end: int


class SequenceLayer(NamedTuple):
    """What one rank has of a layer of a batch: the queries (t, q heads, d) of its part of `segments`."""

    decoder: Decoder
    weights: LayerWeights
    shard: Shard
    store: KvStore
    layer: int
    segments: Sequence[Segment]
    queries: torch.Tensor

    def of_part(self, part: int) -> Shard:
        """The shard of the rank that has another part of the prompts and the same heads."""
        return msgspec.structs.replace(self.shard, part=part)

    def new_places(self, part: int) -> list[torch.Tensor]:
        """The places of the new tokens of a part, by segment."""
        return [_tensor(self.of_part(part).places(each.begin, each.end)) for each in self.segments]

    def all_places(self, part: int) -> list[torch.Tensor]:
        """The places of all tokens of a part so far, by segment."""
        return [_tensor(self.of_part(part).places(0, each.end)) for each in self.segments]

    def kv(self) -> list[torch.Tensor]:
        """The KV (2, kv heads, n, d) of the rank's own part so far, by segment."""
        return [
            self.store.read(each.request, self.layer, places)
            for each, places in zip(self.segments, self.all_places(self.shard.part), strict=True)
        ]


class Ring:
    """The KV of all parts goes around, and each rank's queries attend to the block at hand."""

    def __init__(self, layer: SequenceLayer) -> None:
        self._layer = layer
        count = layer.shard.parts
        heads = len(layer.shard.share(layer.decoder.kv_heads))
        self._shapes = [
            [(2, heads, len(places), layer.decoder.head_dim) for places in layer.all_places(part)]
            for part in range(count)
        ]
        self._blocks = [torch.empty(sum(map(prod, shapes)), dtype=parts.WIRE) for shapes in self._shapes]
        for own, kv in zip(self._split(layer.shard.part), layer.kv(), strict=True):
            own.copy_(kv)
        self._attended: list[list[PartialAttention]] = [[] for _ in layer.segments]

    def go_round(self, step: Collective, exchange: Exchange, during: Callable[[int], None]) -> None:
        """Send the blocks around. `during(r)` has to `attend(r)`, while the block of round r is sent on."""
        for planned, block in zip(step.sizes[0], self._blocks, strict=True):
            parts.check_size(step, planned, block.nbytes)
        exchange.all_gather(self._blocks, during)
        during(len(self._blocks) - 1)

    def attend(self, number: int) -> None:
        """Attend to the block of round `number`."""
        layer = self._layer
        part = (layer.shard.part - number) % layer.shard.parts
        kv = self._split(part)
        own = layer.new_places(layer.shard.part)
        queries = layer.queries.split(list(map(len, own)))
        places = layer.all_places(part)
        for i, attended in enumerate(self._attended):
            attended.append(parts.attended_to(layer.decoder, queries[i], own[i], kv[i], places[i]))

    def added(self) -> torch.Tensor:
        """What attention adds to the hidden states of the rank's tokens."""
        layer = self._layer
        none = torch.empty(0, layer.decoder.hidden)
        return torch.cat([none, *(parts.summed(layer.weights, blocks) for blocks in self._attended)])

    def _split(self, part: int) -> list[torch.Tensor]:
        """The KV (2, kv heads, n, d) in the block of a part, by segment."""
        shapes = self._shapes[part]
        flat = self._blocks[part].split(list(map(prod, shapes)))
        return [one.view(shape) for one, shape in zip(flat, shapes, strict=True)]


class Ulysses:
    """Each rank gets the queries and the KV of all parts for its share of the heads, and returns the results.

    Jacobs et al., "DeepSpeed Ulysses", 2023.
    """

    def __init__(self, layer: SequenceLayer) -> None:
        self._layer = layer
        self._results = torch.empty(0)
        self._all: list[list[torch.Tensor]] = []

    def heads(self, step: Collective, exchange: Exchange) -> None:
        """Send queries and KV to the ranks that have the heads."""
        layer = self._layer
        count = layer.shard.parts
        queries = layer.queries.to(parts.WIRE).chunk(count, dim=1)
        kv = [each.chunk(count, dim=1) for each in layer.kv()]
        out = [
            torch.cat([queries[to].flatten(), *(each[to].flatten() for each in kv)]) for to in range(count)
        ]
        width = layer.decoder.head_dim
        shapes = [
            [
                (sum(map(len, layer.new_places(part))), queries[0].shape[1], width),
                *((2, kv[0][0].shape[1], len(places), width) for places in layer.all_places(part)),
            ]
            for part in range(count)
        ]
        back = self._swapped(step, exchange, out, [sum(map(prod, each)) for each in shapes])
        self._all = [
            [flat.view(shape) for flat, shape in zip(one.split(list(map(prod, each))), each, strict=True)]
            for one, each in zip(back, shapes, strict=True)
        ]

    def compute(self) -> None:
        """Attend with this rank's share of the heads, for the new tokens of all parts."""
        layer = self._layer
        results: list[list[torch.Tensor]] = []
        for part, (queries, *_) in enumerate(self._all):
            new = layer.new_places(part)
            results.append([])
            for i, own in enumerate(queries.to(torch.float32).split(list(map(len, new)))):
                blocks = [
                    parts.attended_to(layer.decoder, own, new[i], kv[i], layer.all_places(other)[i])
                    for other, (_, *kv) in enumerate(self._all)
                ]
                results[-1].append(merged(blocks))
        self._all = [[torch.cat(each)] for each in results]

    def tokens(self, step: Collective, exchange: Exchange) -> None:
        """Send the results back to the ranks that have the tokens."""
        layer = self._layer
        out = [each.to(parts.WIRE).flatten() for (each,) in self._all]
        own = len(layer.queries)
        back = self._swapped(step, exchange, out, [out[layer.shard.part].numel()] * layer.shard.parts)
        self._results = torch.cat([each.view(own, -1) for each in back], dim=1).to(torch.float32)

    def added(self) -> torch.Tensor:
        """What attention adds to the hidden states of the rank's tokens."""
        return functional.linear(self._results, self._layer.weights.output)

    def _swapped(
        self, step: Collective, exchange: Exchange, out: Sequence[torch.Tensor], receives: Sequence[int]
    ) -> list[torch.Tensor]:
        for planned, own in zip(step.sizes[exchange.index], out, strict=True):
            parts.check_size(step, planned, own.nbytes)
        target = torch.empty(sum(receives), dtype=parts.WIRE)
        exchange.all_to_all(torch.cat(list(out)), list(map(len, out)), target, receives)
        return list(target.split(list(receives)))


def _tensor(places: range) -> torch.Tensor:
    return torch.arange(places.start, places.stop, places.step)
