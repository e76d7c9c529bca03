"""A rank's part in one batch: the steps of the plan, carried out on real hidden states and KV."""

from collections.abc import Callable, Iterator, Sequence

import torch

from workers.exchange import Exchange
from workers.model import parts
from workers.model.experts import Visits
from workers.model.kv import KvStore
from workers.model.seeds import token_ids
from workers.model.sequence import Ring, Segment, SequenceLayer, Ulysses
from workers.model.setup import RealModel, Shard
from workers.model.weights import Weights
from workers.plan import BatchPlan, Collective, CollectiveKind, RequestPlan
from workers.rounds import tree_chunks


def segments(requests: Sequence[RequestPlan], rank: int) -> list[Segment]:
    """What the replica of `rank` computes of a batch, request by request."""
    return [
        Segment(each.request, before, before + each.new_tokens)
        for each in requests
        if rank in each.replica
        for before in [each.local_tokens + each.remote_tokens]
    ]


def positions_of(computed: Sequence[Segment], shard: Shard) -> torch.Tensor:
    """The places in their prompts of those of these tokens that `shard` has."""
    return torch.tensor(
        [place for each in computed for place in shard.places(each.begin, each.end)], dtype=torch.int64
    )


class PrefillWork:
    """The state of one batch on one rank, from layer to layer.

    A step is carried out by `compute` or `collective`, in the order of the plan. Compute of layers that other
    pipeline stages have does nothing here.
    """

    def __init__(
        self, plan: BatchPlan, rank: int, model: RealModel, weights: Weights, store: KvStore
    ) -> None:
        self._plan = plan
        self._model = model
        self._decoder = model.decoder
        self._shard = model.shards[rank]
        self._weights = weights
        self._store = store
        steps = [step for layer in plan.layers for step in layer.steps]
        self._swaps_heads = any(isinstance(step, Collective) and step.label == "heads" for step in steps)
        self._mine = segments(plan.requests, rank)
        self._positions = positions_of(self._mine, self._shard)
        self._hidden = self._embedded() if self._shard.first_layer == 0 else self._no_hidden()
        self._summand = self._no_hidden()
        self._visits: Visits | None = None
        self._sequence: Ring | Ulysses | None = None

    def _embedded(self) -> torch.Tensor:
        return torch.cat(
            [
                self._no_hidden(),
                *(
                    self._weights.embedding[token_ids(number, self._model.prompts[number])[places]]
                    for number, places in self._own_places()
                ),
            ]
        )

    def _own_places(self) -> Iterator[tuple[int, torch.Tensor]]:
        """The requests of this rank, each with the places of the tokens that the rank computes."""
        counts = [len(self._shard.places(each.begin, each.end)) for each in self._mine]
        for each, places in zip(self._mine, self._positions.split(counts), strict=True):
            yield each.request, places

    def _no_hidden(self) -> torch.Tensor:
        return torch.empty(0, self._decoder.hidden)

    def ended(self) -> list[tuple[RequestPlan, torch.Tensor]]:
        """The batch is over on this rank: later requests can reuse its KV.

        Returns the logits of the token after each prompt whose last token was computed here. Nothing else
        shows whether the last collectives were right: no KV comes after them.
        """
        lasts = {each.request: each for each in self._plan.requests if each.last}
        found: list[tuple[RequestPlan, torch.Tensor]] = []
        first = 0
        for each in self._mine:
            prompt = self._model.prompts[each.request]
            self._store.cache(each.request, prompt, each.end)
            places = self._shard.places(each.begin, each.end)
            first += len(places)
            if each.request in lasts and prompt.tokens - 1 in places and self._speaks:
                logits = parts.logits(self._weights, self._hidden[first - 1])
                found.append((lasts[each.request], logits))
        return found

    @property
    def over(self) -> list[int]:
        """The requests of this rank of whose prompts the batch has the last part."""
        lasts = {each.request for each in self._plan.requests if each.last}
        return [each.request for each in self._mine if each.request in lasts]

    @property
    def _speaks(self) -> bool:
        """Whether the rank is in the last pipeline stage, and the first of its tensor-parallel ranks."""
        return self._shard.end_layer == self._decoder.layers and self._shard.tp_index == 0

    # --- compute --------------------------------------------------------------------------------

    def compute(self, label: str, layer: int) -> None:
        """Carry out a compute step. Raises `ValueError` for one that is not known."""
        if layer not in self._shard.layers:
            return
        weights = self._weights.layer(layer)
        match label:
            case "attention":
                self._attention(layer)
            case "scores" if isinstance(self._sequence, Ulysses):
                self._sequence.compute()
            case "mlp":
                self._add(parts.mlp(weights, self._hidden))
            case "experts":
                if self._visits is not None:
                    self._visits.compute()
                    return
                alone = Visits(self._decoder, weights, layer, self._hidden, [self._positions], 0)
                alone.stay()
                alone.compute()
                self._hidden = self._hidden + alone.added()
            case _:
                raise ValueError(f"real layers have no step {label!r}")

    def _attention(self, layer: int) -> None:
        """Compute and keep the KV of new tokens. If the rank has all of the prompts, attend to it, too."""
        decoder, weights = self._decoder, self._weights.layer(layer)
        kv = parts.new_kv(decoder, weights, self._hidden, self._positions)
        queries = parts.queries(decoder, weights, self._hidden, self._positions)
        first = 0
        for number, places in self._own_places():
            self._store.write(number, layer, places, kv[:, :, first : first + len(places)])
            first += len(places)
        own = SequenceLayer(decoder, weights, self._shard, self._store, layer, self._mine, queries)
        if self._swaps_heads:
            self._sequence = Ulysses(own)
        else:
            self._sequence = Ring(own)
        if self._shard.parts == 1:
            self.attend(0)
            self._attended()

    def attend(self, number: int) -> None:
        """Attend to the block of KV of round `number` of a ring, which is at hand."""
        assert isinstance(self._sequence, Ring)
        self._sequence.attend(number)

    def _attended(self) -> None:
        assert self._sequence is not None
        self._add(self._sequence.added())
        self._sequence = None

    def _add(self, summand: torch.Tensor) -> None:
        """Add to the hidden states, unless other tensor-parallel ranks have the rest of the sum."""
        if self._shard.tp == 1:
            self._hidden = self._hidden + summand
        else:
            self._summand = summand

    # --- collectives ----------------------------------------------------------------------------

    def collective(
        self, step: Collective, layer: int, exchange: Exchange, during: Callable[[int], None]
    ) -> None:
        """Carry out a collective. In round r of a ring of KV, `during(r)` is called, which has to `attend`.

        Raises `ValueError` for a collective that is not known, and `WrongSize` if the plan counts other bytes
        than the real tensors have.
        """
        match step.label:
            case "ring" if isinstance(self._sequence, Ring):
                self._sequence.go_round(step, exchange, during)
                self._attended()
            case "heads" if isinstance(self._sequence, Ulysses):
                self._sequence.heads(step, exchange)
            case "tokens" if isinstance(self._sequence, Ulysses):
                self._sequence.tokens(step, exchange)
                self._attended()
            case "attention-reduce" | "mlp-reduce":
                self._reduce(step, exchange)
            case "dispatch":
                members = [
                    positions_of(segments(self._plan.requests, rank), self._model.shards[rank])
                    for rank in exchange.members
                ]
                weights, index = self._weights.layer(layer), exchange.index
                self._visits = Visits(self._decoder, weights, layer, self._hidden, members, index)
                self._visits.dispatch(exchange, step)
            case "combine" if self._visits is not None:
                self._visits.combine(exchange, step)
                self._hidden = self._hidden + self._visits.added()
                self._visits = None
            case "stage":
                self._hand_over(step, exchange)
            case _:
                raise ValueError(f"real layers have no collective {step.label!r}")

    def _reduce(self, step: Collective, exchange: Exchange) -> None:
        target = self._summand.to(parts.WIRE).flatten()
        parts.check_size(step, step.sizes[0][0], target.nbytes)
        if step.kind is CollectiveKind.TREE_ALL_REDUCE:
            exchange.tree_all_reduce(target, tree_chunks(step.sizes[0][0]))
        else:
            exchange.all_reduce(target)
        self._hidden = self._hidden + target.view(self._summand.shape).to(torch.float32)

    def _hand_over(self, step: Collective, exchange: Exchange) -> None:
        """Send the hidden states to the rank in this place of the next stage, or receive them there."""
        count = len(self._positions) * self._decoder.hidden
        if exchange.index == 0:
            source, sends, receives = self._hidden.to(parts.WIRE).flatten(), [0, count], [0, 0]
        else:
            source, sends, receives = torch.empty(0, dtype=parts.WIRE), [0, 0], [count, 0]
        target = source.new_empty(sum(receives))
        parts.check_size(step, step.sizes[0][1], 2 * count)
        exchange.all_to_all(source, sends, target, receives)
        if exchange.index == 1:
            self._hidden = target.view(-1, self._decoder.hidden).to(torch.float32)
