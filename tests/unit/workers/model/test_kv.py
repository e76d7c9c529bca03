"""The KV of a rank: what is written, packed, sent and reused is what was there."""

import pytest
import torch
from worker_groups import CPU

from workers.model.kv import KvStore
from workers.model.manifest import KvPiece
from workers.model.setup import Decoder, Prompt, Shard
from workers.pages import OutOfPages

DECODER = Decoder(layers=4, hidden=8, q_heads=4, kv_heads=4, head_dim=2, ffn=8, seed=1)
SHARD = Shard(first_layer=2, end_layer=4, tp=2, tp_index=1)
"""Layers 2 and 3, heads 2 and 3."""
PROMPT = Prompt(tokens=10, blocks=(50, 51), block_tokens=4)


OTHER = Prompt(tokens=9, blocks=(50, 99), block_tokens=4)


def store(pages: int = 9) -> KvStore:
    return KvStore(DECODER, SHARD, pages=pages, block_tokens=4, device=CPU)


def filled() -> KvStore:
    """A request 0 whose elements are numbered in each layer, from 0 in layer 2 and from 100 in layer 3."""
    made = store()
    made.open(0, PROMPT)
    for layer, first in ((2, 0), (3, 100)):
        made.write(0, layer, torch.arange(10), torch.arange(first, first + 80.0).view(2, 2, 10, 2).half())
    return made


def values(content: torch.Tensor) -> list[float]:
    return content.view(torch.float16).tolist()


def everything(kv: KvStore, request: int, layer: int, tokens: int) -> torch.Tensor:
    return kv.read(request, layer, torch.arange(tokens))


def test_a_piece_has_the_key_then_the_value_of_each_token_for_each_head() -> None:
    """Head 3 is the second of the shard. Its token 1 has elements 22 and 23 in K, 62 and 63 in V."""
    piece = KvPiece(request=0, layer=2, places=(range(1, 2),), heads=range(3, 4))
    assert values(filled().packed(piece)) == [22, 23, 62, 63]


def test_spans_come_one_after_the_other() -> None:
    piece = KvPiece(request=0, layer=3, places=(range(1), range(9, 10)), heads=range(2, 3))
    assert values(filled().packed(piece)) == [100, 101, 140, 141, 118, 119, 158, 159]


def test_places_may_be_those_of_a_part() -> None:
    """Tokens 1, 4 and 7 of head 2: K from element 0, V from element 40."""
    piece = KvPiece(request=0, layer=2, places=(range(1, 10, 3),), heads=range(2, 3))
    assert values(filled().packed(piece)) == [2, 3, 42, 43, 8, 9, 48, 49, 14, 15, 54, 55]


def test_what_is_packed_can_be_unpacked_elsewhere() -> None:
    piece = KvPiece(request=0, layer=3, places=(range(2, 5), range(7, 9)), heads=range(2, 4))
    other = store()
    other.open(7, OTHER)  # so that the pages of request 0 have other numbers
    other.open(0, PROMPT)
    other.unpack(piece, filled().packed(piece))
    there, here = everything(filled(), 0, 3, 10), everything(other, 0, 3, 10)
    assert torch.equal(here[:, :, 2:5], there[:, :, 2:5])
    assert torch.equal(here[:, :, 7:9], there[:, :, 7:9])
    assert here.isnan().sum() == 2 * 2 * 5 * 2
    assert everything(other, 0, 2, 10).isnan().all()
    assert everything(other, 7, 3, 9).isnan().all()


def test_some_of_the_heads_leave_the_others_as_they_are() -> None:
    piece = KvPiece(request=0, layer=2, places=(range(4),), heads=range(3, 4))
    other = store()
    other.open(0, PROMPT)
    other.unpack(piece, filled().packed(piece))
    here = everything(other, 0, 2, 10)
    assert torch.equal(here[:, 1, :4], everything(filled(), 0, 2, 10)[:, 1, :4])
    assert here[:, 0].isnan().all()


def test_a_cached_block_is_reused_by_its_id_and_takes_no_other_page() -> None:
    kv = filled()
    kv.cache(0, PROMPT, 10)
    kv.open(1, OTHER, ((0, 4),))
    assert kv.table(1)[0] == kv.table(0)[0]
    assert kv.free_pages == 9 - 3 - 2
    assert torch.equal(everything(kv, 1, 3, 4), everything(kv, 0, 3, 4))
    assert everything(kv, 1, 3, 9)[:, :, 4:].isnan().all()


def test_cached_blocks_stay_when_their_request_is_over() -> None:
    kv = filled()
    before = everything(kv, 0, 2, 4)
    kv.cache(0, PROMPT, 10)
    kv.close(0)
    assert kv.free_pages == 9 - 2
    kv.open(1, OTHER, ((0, 4),))
    assert torch.equal(everything(kv, 1, 2, 4), before)


def test_cached_blocks_are_packed_for_a_request_that_is_not_here() -> None:
    kv = filled()
    kv.cache(0, PROMPT, 10)
    piece = KvPiece(request=8, layer=2, places=(range(4, 8),), heads=range(2, 4))
    mine = KvPiece(request=0, layer=2, places=(range(4, 8),), heads=range(2, 4))
    assert torch.equal(kv.packed_blocks(piece, PROMPT), kv.packed(mine))


def test_a_block_that_is_not_filled_is_not_cached_and_its_request_gets_no_pages() -> None:
    kv = filled()
    kv.cache(0, PROMPT, 7)
    with pytest.raises(KeyError):
        kv.open(1, PROMPT, ((0, 8),))
    assert 1 not in kv
    assert kv.free_pages == 9 - 3
    with pytest.raises(KeyError):
        kv.packed_blocks(KvPiece(request=8, layer=2, places=(range(4, 8),), heads=range(2, 4)), PROMPT)


def test_kv_of_an_earlier_request_is_never_that_of_a_later_one() -> None:
    kv = filled()
    pages = set(kv.table(0))
    kv.close(0)
    kv.open(1, OTHER)
    assert set(kv.table(1)) == pages
    assert everything(kv, 1, 2, 9).isnan().all()
    assert everything(kv, 1, 3, 9).isnan().all()


def test_a_rank_without_a_page_left_says_how_many_it_has() -> None:
    """A prompt of 10 tokens needs 3 pages of 4."""
    kv = store(pages=5)
    kv.open(0, PROMPT)
    with pytest.raises(OutOfPages, match="3 pages of KV are wanted, and 2 of 5 are free"):
        kv.open(1, PROMPT)
    assert kv.free_pages == 2


def test_a_request_has_one_block_table() -> None:
    with pytest.raises(ValueError, match="has its pages already"):
        filled().open(0, PROMPT)
