"""What became of requests, and which of them met their SLO."""

import pytest
from result_rows import MS, request_row

from experiments.results.requests import fates, slo_attainment


def test_without_requests_there_is_no_slo_attainment() -> None:
    assert slo_attainment([]) is None


def test_slo_attainment_counts_every_arrived_request() -> None:
    rows = [
        request_row(ttft_ns=100 * MS),  # on the dot: met
        request_row(ttft_ns=100 * MS + 1),
        request_row(status="pruned", ttft_ns=50 * MS),
        request_row(status="failed", ttft_ns=None, first_token_ns=None),
    ]
    assert slo_attainment(rows) == 0.25


def test_what_became_of_requests_adds_up_to_those_that_arrived() -> None:
    rows = [request_row(status=status) for status in ("completed", "failed", "failed", "pruned")]

    assert fates(rows) == {"arrived": 4, "completed": 1, "pruned": 1, "failed": 2}


def test_a_request_that_ended_in_no_known_way_is_a_contradiction() -> None:
    with pytest.raises(ValueError, match="request 7 ended as 'lost'"):
        fates([request_row(request=7, status="lost")])
