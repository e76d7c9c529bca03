"""The outcome of requests, and which of them met their SLO."""

from result_rows import MS, request_row

from experiments.results.requests import fates, slo_attainment


def test_without_requests_there_is_no_slo_attainment() -> None:
    assert slo_attainment([]) is None


def test_slo_attainment_counts_every_arrived_request() -> None:
    rows = [
        request_row(ttft_ns=100 * MS),  # on the dot: met
        request_row(ttft_ns=100 * MS + 1),
        request_row(ttft_ns=101 * MS, times_pruned=1),
        request_row(status="failed", ttft_ns=None, first_token_ns=None),
    ]
    assert slo_attainment(rows) == 0.25


def test_requests_are_completed_or_failed_and_were_pruned_or_not() -> None:
    """Two requests were pruned, and one of them was freed again. A pruned request is still served."""
    rows = [
        request_row(),
        request_row(times_pruned=3),
        request_row(times_pruned=1, ended_pruned=True),
        request_row(status="failed"),
    ]
    assert fates(rows) == {"arrived": 4, "completed": 3, "failed": 1, "pruned": 2, "ended_pruned": 1}
