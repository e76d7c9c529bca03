"""Two runs side by side: which flows match, and how errors are computed."""

from typing import Any

import numpy as np
import pytest
from result_rows import MS, flow_row, request_row

from controller.flow import Stage
from experiments.validate.compare import Pair, RunTimes, compare, matched_flows, run_times
from testbed.record import FlowRow


def transfer(id: str, took_ms: float, *, size: int = 1000, **changes: Any) -> FlowRow:
    return flow_row(id=id, finish_ns=round(took_ms * MS), size_bytes=size, **changes)


def times(*flows: FlowRow, ttft_ms: float = 100) -> RunTimes:
    return run_times([request_row(ttft_ns=round(ttft_ms * MS))], flows)


def test_a_transfer_is_known_by_what_it_carries_not_by_its_batch() -> None:
    one = times(transfer("p0.b0.r7.l2.s3.0-8", 10, request=7, layer=2))
    other = times(transfer("p1.b3.r7.l2.s3.0-8", 12, request=7, layer=2))
    assert matched_flows(one, other).errors == pytest.approx([0.2])


def test_a_transfer_that_another_batch_made_larger_is_another_one() -> None:
    one = times(transfer("b0.r7", 10, request=7, layer=2), transfer("lone", 1))
    other = times(transfer("b0.r7", 10, request=7, layer=2, size=2000), transfer("lone", 1))
    [stage] = [s for s in compare(one, other).stages if s.stage == "S3"]
    assert (stage.matched, stage.only_emulated, stage.only_simulated) == (1, 1, 1)


def test_a_collective_lasts_from_its_last_submit_to_its_last_finish() -> None:
    """Members are ready at 1 and 4 ms and done at 9 and 7: 9 - 4 = 5 ms, 3,000 bytes."""
    shares = [
        flow_row(
            id=f"c.{i}",
            stage=Stage.COLLECTIVE,
            coflow="c",
            size_bytes=size,
            submit_ns=ready * MS,
            finish_ns=end * MS,
        )
        for i, (ready, end, size) in enumerate([(1, 9, 1000), (4, 7, 2000)])
    ]
    [collective] = times(*shares).flows.values()
    assert (collective.took_ns, collective.size_bytes) == (5 * MS, 3000)


def test_errors_are_relative_to_the_emulated_run() -> None:
    """110 for 100, 260 for 200, 0 for 0, and 5 for 0."""
    emulated = times(*(transfer(name, ms) for name, ms in zip("abcd", (100, 200, 0, 0), strict=True)))
    simulated = times(*(transfer(name, ms) for name, ms in zip("abcd", (110, 260, 0, 5), strict=True)))
    matched = matched_flows(emulated, simulated)
    assert matched.errors == pytest.approx([0.1, 0.3, 0.0, np.inf])
    assert matched.within == 0.5


def test_a_comparison_by_hand() -> None:
    """TTFT 100 against 90 ms; three S3 flows of 10, 10 and 40 ms against 9, 12 and 40. Of the errors -10 %,
    +20 % and 0, two are within 15 %."""
    emulated = times(transfer("a", 10), transfer("b", 10), transfer("c", 40))
    simulated = times(transfer("a", 9), transfer("b", 12), transfer("c", 40), ttft_ms=90)
    found = compare(emulated, simulated)
    assert found.ttft_mean_s == Pair(0.1, 0.09)
    assert found.ttft_mean_s.error == pytest.approx(-0.1)
    assert found.cct_mean_s == Pair(None, None)
    [stage] = [s for s in found.stages if s.stage == "S3"]
    assert stage.mean_s.error == pytest.approx(61 / 60 - 1)
    assert stage.p50 == pytest.approx(0.0)
    assert (found.matched, found.flows, found.within) == (3, 3, pytest.approx(2 / 3))


def test_runs_without_flows_of_both_say_nothing_of_flows() -> None:
    found = compare(times(transfer("a", 1)), times(transfer("b", 1)))
    assert (found.matched, found.within) == (0, None)


def test_background_transfers_are_left_out() -> None:
    flows = [flow_row(id="background.0-4.0", stage=Stage.BACKGROUND, request=None)]
    assert run_times([], flows).flows == {}
