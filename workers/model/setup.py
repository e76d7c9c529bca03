"""What ranks are told of the model that they really compute. Plain data; imports no torch."""

from collections.abc import Iterator

import msgspec

ELEMENT_BYTES = 2
"""Bytes of an element of KV or of a hidden state on the wire."""


class WrongSize(RuntimeError):
    """A plan counts other bytes than the real tensors have."""


class Decoder(msgspec.Struct, frozen=True, kw_only=True):
    """The sizes of a decoder, and the seed of its weights.

    - `ffn`: the inner width of the MLP of a dense layer. A sparse layer has `experts` of width `expert_ffn`,
      of which a token visits `top_k`, and a shared one of width `shared_ffn`, which 0 leaves out.
    - `dense_layers`: the layers without experts, if there are `experts`.
    - `expert_ways`: the routed experts are visited in turn over so many equal parts of them.
    - `sequence_parts`: so many ranks divide the tokens of a prompt, if there are experts.
    - `gated`: a feed-forward has three matrices, otherwise two.
    - `window`: how many tokens back a token looks, itself included; None: all the way.
    """

    layers: int
    hidden: int
    q_heads: int
    kv_heads: int
    head_dim: int
    ffn: int
    seed: int
    experts: int = 0
    top_k: int = 0
    expert_ffn: int = 0
    shared_ffn: int = 0
    dense_layers: tuple[int, ...] = ()
    expert_ways: int = 1
    sequence_parts: int = 1
    gated: bool = True
    window: int | None = None

    def sparse(self, layer: int) -> bool:
        return self.experts > 0 and layer not in self.dense_layers


class Shard(msgspec.Struct, frozen=True, kw_only=True):
    """What a rank has: the layers of its pipeline stage, and one of `tp` shares of heads and of MLPs.

    It computes one of `parts` parts of a prompt: every token whose place, modulo `parts`, is `part`.
    `experts` are the first routed expert that it has and the one after the last.
    """

    first_layer: int
    end_layer: int
    tp: int = 1
    tp_index: int = 0
    parts: int = 1
    part: int = 0
    experts: tuple[int, int] = (0, 0)

    @property
    def layers(self) -> range:
        return range(self.first_layer, self.end_layer)

    def share(self, count: int) -> range:
        """The rank's share of `count` heads, or of the inner width of an MLP."""
        return range(self.tp_index * count // self.tp, (self.tp_index + 1) * count // self.tp)

    def places(self, begin: int, end: int) -> range:
        """The places from `begin` to `end` of a prompt that are in the rank's part of it."""
        return range(begin + (self.part - begin) % self.parts, end, self.parts)


def whole(decoder: Decoder) -> Shard:
    """The shard of a rank that has all of the model."""
    return Shard(first_layer=0, end_layer=decoder.layers, experts=(0, decoder.experts))


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """The prompt of a request: its length, and the chained ids of its full blocks."""

    tokens: int
    blocks: tuple[int, ...]
    block_tokens: int

    def spans(self, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The full blocks in the tokens from `begin` to `end`: each with its id, its begin and its end."""
        for number, block in enumerate(self.blocks):
            first = number * self.block_tokens
            if begin <= first and first + self.block_tokens <= end:
                yield block, first, first + self.block_tokens


class RealModel(msgspec.Struct, frozen=True, kw_only=True):
    """The model, what each rank has of it, and the prompt of each request.

    `workers` are the ranks of each decode worker. All prompts have blocks of one size.
    """

    decoder: Decoder
    shards: dict[int, Shard]
    workers: tuple[tuple[int, ...], ...]
    prompts: dict[int, Prompt]

    @property
    def block_tokens(self) -> int:
        """The tokens of a page of KV: those of a block."""
        return max(prompt.block_tokens for prompt in self.prompts.values())

    @property
    def pages(self) -> int:
        """How many pages a rank has: enough for all prompts, wherever they go.

        A prompt needs no more on a rank than this counts for it, and less if it shares cached blocks.
        """
        return sum(-(-prompt.tokens // self.block_tokens) for prompt in self.prompts.values())
