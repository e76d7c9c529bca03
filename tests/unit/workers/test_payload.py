"""Payloads: the same bytes on every rank, and every wrong byte is noticed."""

import pytest
import torch

from workers.lanes import chunks
from workers.payload import BLOCK_BYTES, Payloads, WrongPayload, sampled


@pytest.fixture(scope="module")
def payloads() -> Payloads:
    return Payloads(7)


def test_all_ranks_of_a_seed_know_the_same_bytes(payloads: Payloads) -> None:
    assert torch.equal(payloads.of("f/0", 5000), Payloads(7).of("f/0", 5000))


def test_another_seed_or_another_name_means_other_bytes(payloads: Payloads) -> None:
    mine = payloads.of("f/0", 5000)
    assert not torch.equal(mine, payloads.of("f/1", 5000))
    assert not torch.equal(mine, Payloads(8).of("f/0", 5000))


@pytest.mark.parametrize("size", [0, 1, 4096, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES])
def test_a_payload_has_the_size_that_was_asked_for(payloads: Payloads, size: int) -> None:
    assert payloads.of("f", size).shape == (size,)


def test_a_payload_longer_than_the_block_repeats_it(payloads: Payloads) -> None:
    long = payloads.of("f", 2 * BLOCK_BYTES + 100)
    assert torch.equal(long[:100], long[2 * BLOCK_BYTES :])
    assert torch.equal(long[:BLOCK_BYTES], payloads.of("f", BLOCK_BYTES))


def test_a_short_payload_begins_like_a_long_one_of_the_same_name(payloads: Payloads) -> None:
    assert torch.equal(payloads.of("f", 100), payloads.of("f", BLOCK_BYTES + 1)[:100])


def test_payloads_can_be_read_as_integers(payloads: Payloads) -> None:
    for i in range(50):
        assert payloads.of(f"f/{i}", 800).view(torch.int64).shape == (100,)


def test_a_short_payload_is_not_copied(payloads: Payloads) -> None:
    assert payloads.of("f", 1000).data_ptr() == payloads.of("f", 2000).data_ptr()


def test_right_bytes_pass(payloads: Payloads) -> None:
    payloads.check("f", payloads.of("f", 4096).clone())


def test_wrong_bytes_are_counted_and_the_first_is_named(payloads: Payloads) -> None:
    received = payloads.of("f", 4096).clone()
    received[[100, 101, 4000]] ^= 1
    with pytest.raises(WrongPayload, match=r"^f: 3 of 4096 bytes are wrong, the first at 100$"):
        payloads.check("f", received)


def test_a_shifted_message_is_noticed(payloads: Payloads) -> None:
    with pytest.raises(WrongPayload):
        payloads.check("f", payloads.of("f", 4097)[1:])


def test_the_checked_sample_has_the_share_that_was_asked_for() -> None:
    """2,000 draws at 10 %: 200, standard deviation 13."""
    names = [f"flow {i}" for i in range(2000)]
    assert 140 < sum(sampled(name, 0.1) for name in names) < 260
    assert all(sampled(name, 1.0) for name in names)
    assert not any(sampled(name, 0.0) for name in names)


def test_chunks_cover_a_message_in_order_with_names_of_their_own() -> None:
    assert chunks("f", 2500, 1000) == [("f/0", 1000), ("f/1", 1000), ("f/2", 500)]
    assert chunks("f", 2000, 1000) == [("f/0", 1000), ("f/1", 1000)]
    assert chunks("f", 1, 1000) == [("f/0", 1)]
