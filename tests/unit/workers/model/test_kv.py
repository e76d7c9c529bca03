"""The KV of a rank: what is written, packed, sent and reused is what was there."""

import pytest
import torch

from workers.model.kv import KvStore
from workers.model.manifest import KvPiece
from workers.model.setup import Decoder, Prompt, Shard

DECODER = Decoder(layers=4, hidden=8, q_heads=4, kv_heads=4, head_dim=2, ffn=8, seed=1)
SHARD = Shard(first_layer=2, end_layer=4, tp=2, tp_index=1)
"""Layers 2 and 3, heads 2 and 3."""
PROMPT = Prompt(tokens=10, blocks=(50, 51), block_tokens=4)


def filled() -> KvStore:
    """A request 0 whose elements are numbered in each layer, from 0 in layer 2 and from 100 in layer 3."""
    store = KvStore(DECODER, SHARD)
    store.open(0, PROMPT.tokens)
    for layer, first in ((2, 0), (3, 100)):
        store.of(0, layer).copy_(torch.arange(first, first + 80).view(2, 2, 10, 2))
    return store


def values(content: torch.Tensor) -> list[float]:
    return content.view(torch.float16).tolist()


def test_a_piece_has_the_keys_then_the_values_of_its_heads_and_tokens() -> None:
    """Head 3 is the second of the shard. Its token 1 has elements 22 and 23 in K, 62 and 63 in V."""
    piece = KvPiece(request=0, layer=2, places=(range(1, 2),), heads=range(3, 4))
    assert values(filled().packed(piece)) == [22, 23, 62, 63]


def test_spans_come_one_after_the_other() -> None:
    piece = KvPiece(request=0, layer=3, places=(range(1), range(9, 10)), heads=range(2, 3))
    assert values(filled().packed(piece)) == [100, 101, 118, 119, 140, 141, 158, 159]


def test_places_may_be_those_of_a_part() -> None:
    """Tokens 1, 4 and 7 of head 2: K from element 0, V from element 40."""
    piece = KvPiece(request=0, layer=2, places=(range(1, 10, 3),), heads=range(2, 3))
    assert values(filled().packed(piece)) == [2, 3, 8, 9, 14, 15, 42, 43, 48, 49, 54, 55]


def test_what_is_packed_can_be_unpacked_elsewhere() -> None:
    piece = KvPiece(request=0, layer=3, places=(range(2, 5), range(7, 9)), heads=range(2, 4))
    other = KvStore(DECODER, SHARD)
    other.open(0, PROMPT.tokens)
    other.unpack(piece, filled().packed(piece))
    there, here = filled().of(0, 3), other.of(0, 3)
    assert torch.equal(here[:, :, 2:5], there[:, :, 2:5])
    assert torch.equal(here[:, :, 7:9], there[:, :, 7:9])
    assert here.isnan().sum() == 2 * 2 * 5 * 2
    assert other.of(0, 2).isnan().all()


def test_a_cached_block_is_reused_by_its_id() -> None:
    store = filled()
    store.cache(0, PROMPT, 10)
    store.open(1, 9)
    store.reuse(1, Prompt(tokens=9, blocks=(50, 99), block_tokens=4), 0, 4)
    assert torch.equal(store.of(1, 3)[:, :, :4], store.of(0, 3)[:, :, :4])
    assert store.of(1, 3)[:, :, 4:].isnan().all()


def test_cached_blocks_are_packed_for_a_request_that_is_not_here() -> None:
    store = filled()
    store.cache(0, PROMPT, 10)
    piece = KvPiece(request=8, layer=2, places=(range(4, 8),), heads=range(2, 4))
    mine = KvPiece(request=0, layer=2, places=(range(4, 8),), heads=range(2, 4))
    assert torch.equal(store.packed_blocks(piece, PROMPT), store.packed(mine))


def test_a_block_that_is_not_filled_is_not_cached() -> None:
    store = filled()
    store.cache(0, PROMPT, 7)
    with pytest.raises(KeyError):
        store.reuse(0, PROMPT, 4, 8)
