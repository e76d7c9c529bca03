"""The parts of the TTFT of a request."""

from result_rows import MS, request_row, span_row

from experiments.results.spans import spans_by_batch
from experiments.results.ttft_parts import TimeSpent, time_spent


def test_the_parts_of_a_ttft_add_up_to_it() -> None:
    # Prefill 10..70 ms on two ranks: S1 wait (4 + 0) / 2, compute (30 + 34) / 2,
    # collective (24 + 22) / 2, so 60 - 2 - 32 - 23 = 3 ms are something else.
    spans = [
        span_row(0, "s1_wait", 10, 14),
        span_row(0, "compute", 14, 44),
        span_row(0, "collective", 44, 68),
        span_row(1, "compute", 10, 44),
        span_row(1, "collective", 44, 66),
        span_row(8, "decode", 90, 100),
    ]
    split = time_spent(request_row(), spans_by_batch(spans))
    assert split == TimeSpent(
        queue_ns=10 * MS,
        s1_wait_ns=2 * MS,
        compute_ns=32 * MS,
        collective_ns=23 * MS,
        other_ns=3 * MS,
        p2d_tail_ns=20 * MS,
        decode_ns=10 * MS,
    )


def test_p2d_that_ends_before_prefill_has_no_tail() -> None:
    split = time_spent(request_row(p2d_end_ns=60 * MS), {})
    assert split is not None
    assert (split.p2d_tail_ns, split.decode_ns) == (0, 30 * MS)


def test_a_request_without_a_first_token_has_no_split() -> None:
    assert time_spent(request_row(first_token_ns=None), {}) is None
