"""Decoding after the first token, on a model whose numbers fit in the head.

The dense model of `serving_world` has 2 layers. In each, attention has 2 x 4 x 2 x (2 + 2) = 64 weights and
the MLP 3 x 4 x 8 = 96, 2 bytes each: 320 bytes a layer, 640 in all. A token's KV is 2 x 2 heads x 2 x 2
bytes = 16 bytes a layer, 32 in all. The GPU here reads 1,000 bytes/s and computes in no time.
"""

import msgspec
import pytest
from serving_world import DENSE, GPU, MOE

from testbed.serving.decoding import Decoding, StepTraffic, batch_step_s, last_tokens_ns, step_traffic

READER = msgspec.structs.replace(GPU, peak_flops=1e12)
SECOND = 1_000_000_000


def test_a_step_reads_the_weights_once_and_the_kv_of_every_request() -> None:
    """640 + 10 x 32 = 960 bytes; with a second request of 5 tokens 160 more."""
    assert batch_step_s(DENSE, READER, [10]) == pytest.approx(0.960)
    assert batch_step_s(DENSE, READER, [10, 5]) == pytest.approx(1.120)
    assert batch_step_s(DENSE, READER, []) == 0.0


def test_a_step_that_computes_longer_than_it_reads_takes_that_long() -> None:
    """Per layer 2 x (64 + 96) FLOPs and 4 x 2 heads x 2 x 11 keys = 496; two layers, 500 FLOP/s."""
    assert batch_step_s(DENSE, GPU, [10]) == pytest.approx(2 * 496 / 500)


def test_more_tokens_visit_more_experts_but_never_more_than_there_are() -> None:
    """4 experts of 96 weights, a token visits 2: n tokens 4 (1 - 0.5^n), so 2, 3, 3.5.

    The gate has 16 weights. Per layer 2 x (64 + 16) + 192 x visited bytes, KV of one token before each.
    """
    for tokens, visited in ((1, 2), (2, 3), (3, 3.5)):
        expected = 2 * (160 + 192 * visited + 16 * tokens)
        assert batch_step_s(MOE, READER, [1] * tokens) == pytest.approx(expected / 1000)


def test_requests_join_at_the_next_step_and_leave_with_their_last_token() -> None:
    """A has 10 tokens before and 3 to give, the first at 0; B 5 and 2, the first at 0.5 s.

    A alone: 0.960 s for its second token. Then both: A has 11 before, B 5: 640 + 16 x 32 = 1.152 s.
    """
    a = Decoding(request=1, first_token_ns=0, prompt_tokens=10, output_tokens=3)
    b = Decoding(request=2, first_token_ns=SECOND // 2, prompt_tokens=5, output_tokens=2)

    ends = last_tokens_ns([b, a], model=DENSE, gpu=READER, most=8)

    assert ends == {1: 2_112_000_000, 2: 2_112_000_000}


def test_with_room_for_one_the_second_waits_for_the_first_to_leave() -> None:
    """A alone: 0.960 s and 640 + 11 x 32 = 0.992 s; then B alone 640 + 5 x 32 = 0.800 s."""
    a = Decoding(request=1, first_token_ns=0, prompt_tokens=10, output_tokens=3)
    b = Decoding(request=2, first_token_ns=SECOND // 2, prompt_tokens=5, output_tokens=2)

    assert last_tokens_ns([a, b], model=DENSE, gpu=READER, most=1) == {1: 1_952_000_000, 2: 2_752_000_000}


def test_a_request_of_one_token_ends_with_it_and_an_idle_worker_waits_for_the_next() -> None:
    one = Decoding(request=1, first_token_ns=7, prompt_tokens=10, output_tokens=1)
    later = Decoding(request=2, first_token_ns=5 * SECOND, prompt_tokens=10, output_tokens=2)

    ends = last_tokens_ns([one, later], model=DENSE, gpu=READER, most=8)

    assert ends == {1: 7, 2: 5 * SECOND + 960_000_000}


def test_the_traffic_of_a_step_is_dispatch_and_combine_of_every_sparse_layer() -> None:
    """3 requests, 2 experts each, 4 x 2 bytes of hidden state: 48 bytes a dispatch. Two layers, there and
    back: 192 bytes, a quarter of them to each of four workers."""
    traffic = step_traffic(ranks=4, batch=3, context=1, model=MOE, gpu=READER)

    assert traffic == StepTraffic(period_ns=round(2 * (160 + 192 * 3.5 + 48) * 1e6), size_bytes=48)


@pytest.mark.parametrize(("ranks", "batch", "model"), [(1, 3, MOE), (4, 0, MOE), (4, 3, DENSE)])
def test_who_has_nobody_to_send_to_or_nothing_to_send_is_silent(
    ranks: int, batch: int, model: object
) -> None:
    assert step_traffic(ranks=ranks, batch=batch, context=1, model=model, gpu=READER) is None  # type: ignore[arg-type]
