"""A trace by columns: arrivals and lengths, against numbers worked out by hand."""

import numpy as np
import pytest
from trace_columns import columns

from experiments.traces.columns import arrivals_of, lengths_of


def test_arrivals_are_told_by_hand() -> None:
    """Two in each even second up to 12 s: 2, 0, 2, 0 ..., mean 1, variance 12 / 11. 12 gaps in 12 s."""
    at = tuple(second + part for second in range(0, 12, 2) for part in (0, 0.5))
    found = arrivals_of(columns(*[()] * 13, times_s=(*at, 12.0)))

    assert (found.span_s, found.rate_rps) == (12, 1)
    assert found.dispersion == {1: pytest.approx(12 / 11), 10: None}
    # Six gaps each of 0.5 and 1.5 s: the mean is 1 and the deviation 0.5.
    assert found.gap_cv == pytest.approx(0.5)


def test_requests_that_all_arrive_at_once_have_no_rate() -> None:
    found = arrivals_of(columns((), (), times_s=(0, 0)))

    assert (found.rate_rps, found.gap_cv, found.dispersion) == (None, None, {1: None, 10: None})


def test_lengths_are_told_by_hand() -> None:
    """100 and 300: the mean is 200, the deviation 100. The p90 is at rank 0.9 between them."""
    found = lengths_of(np.array([100, 300]))

    assert (found.mean, found.cv, found.p50, found.max) == (200, 0.5, 200, 300)
    assert found.p90 == pytest.approx(280)
