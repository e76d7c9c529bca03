"""What ranks are told of the model: the size of a page, and of a layer."""

import msgspec
from real_world import BLOCK_TOKENS, DENSE, MOE, real_job, request

from testbed.coordinator.rank_sizes import layer_sizes, page_bytes

PROMPTS = [request(0, 32, ()), request(1, 48, ())]


def test_a_page_has_a_block_of_the_heads_of_a_rank() -> None:
    """8 tokens x 2 x 4 heads x 16 wide x 2 B = 2,048 B, of which a rank of two has half."""
    job = real_job(DENSE, PROMPTS, units=1, per_unit=2)
    assert BLOCK_TOKENS == 8
    assert page_bytes(job, job.placement.units["p0"][0]) == 1024
    assert page_bytes(job, job.placement.decode[0]) == 2048


def test_a_rank_with_a_copy_of_a_head_has_a_page_of_that_head() -> None:
    job = real_job(DENSE, PROMPTS, units=1, per_unit=8)
    assert page_bytes(job, job.placement.units["p0"][0]) == 8 * 2 * 16 * 2


def test_without_requests_a_block_has_16_tokens() -> None:
    job = msgspec.structs.replace(real_job(DENSE, PROMPTS, units=1, per_unit=2), requests=())
    assert page_bytes(job, job.placement.decode[0]) == 4096


def test_a_rank_has_its_share_of_a_layer() -> None:
    job = real_job(DENSE, PROMPTS, units=1, per_unit=2)
    sizes = layer_sizes(job, job.placement.units["p0"][0])
    assert (sizes.hidden, sizes.q_heads, sizes.kv_heads, sizes.ffn) == (64, 4, 2, 48)
    assert (sizes.head_dim, sizes.v_dim, sizes.gated, sizes.context) == (16, 16, True, 40)


def test_an_expert_is_as_wide_as_it_is() -> None:
    job = real_job(MOE, PROMPTS, units=1, per_unit=2)
    assert layer_sizes(job, job.placement.units["p0"][0]).ffn == 48
