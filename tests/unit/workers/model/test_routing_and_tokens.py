"""What follows from a seed and a place: the experts of a token, and the tokens of a prompt."""

from collections import Counter

import pytest
import torch

from workers.model.routing import visited
from workers.model.seeds import VOCABULARY, token_ids
from workers.model.setup import Decoder, Prompt


def decoder(*, experts: int, top_k: int, ways: int) -> Decoder:
    return Decoder(
        layers=2,
        hidden=8,
        q_heads=2,
        kv_heads=2,
        head_dim=4,
        ffn=0,
        seed=1,
        experts=experts,
        top_k=top_k,
        expert_ffn=8,
        expert_ways=ways,
    )


@pytest.mark.parametrize(("experts", "top_k", "ways", "run"), [(8, 2, 4, 2), (8, 2, 2, 1), (6, 2, 3, 3)])
def test_any_run_of_tokens_visits_the_parts_equally_often(
    experts: int, top_k: int, ways: int, run: int
) -> None:
    """`run` tokens make a multiple of `ways` visits: 2 x 2 over 4 parts, 1 x 2 over 2, 3 x 2 over 3."""
    for begin in range(11):
        for count in (run, 5 * run):
            chosen = visited(
                decoder(experts=experts, top_k=top_k, ways=ways), 1, torch.arange(begin, begin + count)
            )
            parts = Counter((chosen // (experts // ways)).flatten().tolist())
            assert parts == dict.fromkeys(range(ways), count * top_k // ways)


def test_a_token_visits_different_experts_and_all_experts_are_visited() -> None:
    chosen = visited(decoder(experts=8, top_k=3, ways=4), 0, torch.arange(40))
    assert all(len(set(row)) == 3 for row in chosen.tolist())
    assert set(chosen.flatten().tolist()) == set(range(8))


def test_layers_differ_in_their_order_of_experts() -> None:
    model = decoder(experts=8, top_k=2, ways=4)
    assert visited(model, 0, torch.arange(8)).tolist() != visited(model, 1, torch.arange(8)).tolist()


def test_prompts_with_equal_blocks_begin_with_equal_tokens() -> None:
    one = token_ids(1, Prompt(tokens=20, blocks=(5, 6), block_tokens=8))
    other = token_ids(2, Prompt(tokens=19, blocks=(5, 7), block_tokens=8))
    assert (len(one), len(other)) == (20, 19)
    assert one[:8].tolist() == other[:8].tolist()
    assert one[8:16].tolist() != other[8:16].tolist()
    assert one[16:19].tolist() != other[16:].tolist()
    assert 0 <= int(one.min()) <= int(one.max()) < VOCABULARY


def test_a_prompt_without_known_blocks_has_tokens_of_its_own() -> None:
    assert len(token_ids(3, Prompt(tokens=20, blocks=(), block_tokens=8))) == 20
