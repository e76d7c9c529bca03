"""The functions of a layer, against torch's own and against values worked out by hand."""

import pytest
import torch
from torch.nn import functional

from workers.model.layers import attended, fed_forward, merged, normed, rotated
from workers.model.seeds import matrix


def test_a_normed_row_has_a_root_mean_square_of_one() -> None:
    """(3, 4) has a mean square of 12.5."""
    assert torch.allclose(normed(torch.tensor([[3.0, 4.0]])), torch.tensor([[3.0, 4.0]]) / 12.5**0.5)


def test_a_head_of_two_elements_is_turned_by_its_position_in_radians() -> None:
    turned = rotated(torch.tensor([[[1.0, 0.0]]]), torch.tensor([3]))
    assert torch.allclose(turned, torch.tensor([[[-0.9899925, 0.1411200]]]))


@pytest.mark.parametrize("window", [None, 3])
def test_attention_is_that_of_torch(window: int | None) -> None:
    """Five new tokens after four earlier ones, four query heads on two KV heads."""
    queries = matrix("queries", 5 * 4, 8).view(5, 4, 8) * 3
    keys, values = matrix("keys", 2 * 9, 8).view(2, 9, 8), matrix("values", 2 * 9, 8).view(2, 9, 8)
    back = torch.arange(4, 9)[:, None] - torch.arange(9)
    seen = (back >= 0) & (back < (window or 9))
    wanted = functional.scaled_dot_product_attention(
        queries.transpose(0, 1),
        keys.repeat_interleave(2, 0),
        values.repeat_interleave(2, 0),
        attn_mask=seen,
    )
    places = torch.arange(9)
    got = merged([attended(queries, keys, values, torch.arange(4, 9), places, window)])
    assert torch.allclose(got, wanted.transpose(0, 1).flatten(1), atol=1e-6)


def test_attention_to_blocks_of_keys_adds_up_even_if_a_query_sees_none_of_a_block() -> None:
    queries, keys = matrix("queries", 3 * 2, 8).view(3, 2, 8), matrix("keys", 6, 8).view(1, 6, 8)
    positions, places = torch.tensor([1, 3, 5]), torch.arange(6)
    whole = merged([attended(queries, keys, keys, positions, places, 2)])
    blocks = [
        attended(queries, keys[:, part::3], keys[:, part::3], positions, places[part::3], 2)
        for part in range(3)
    ]
    assert torch.allclose(merged(blocks), whole, atol=1e-6)


def test_attention_is_divided_by_heads() -> None:
    queries, keys = matrix("queries", 12, 8).view(3, 4, 8), matrix("keys", 2 * 3, 8).view(2, 3, 8)
    positions = torch.arange(3)
    whole = attended(queries, keys, keys, positions, positions, None)
    halves = [
        attended(queries[:, 2 * i : 2 * i + 2], keys[i : i + 1], keys[i : i + 1], positions, positions, None)
        for i in (0, 1)
    ]
    assert torch.allclose(torch.cat([half.values for half in halves], dim=1), whole.values, atol=1e-6)


def test_a_feed_forward_has_a_gate_or_not() -> None:
    """SiLU(0) = GELU(0) = 0, SiLU(1) = 1 / (1 + 1/e) = 0.7310586, GELU(1) = 0.8413447."""
    hidden, two, three = torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([[3.0]])
    one = torch.tensor([[1.0]])
    assert float(fed_forward(hidden, one, two, three)) == pytest.approx(0.7310586 * 2 * 3)
    assert float(fed_forward(hidden, None, one, three)) == pytest.approx(0.8413447 * 3)
