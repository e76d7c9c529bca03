"""The result of runs in sentences, against numbers worked out by hand."""

from pathlib import Path

import msgspec
from result_rows import MS, request_row

from experiments.compare.sentences import result_sentences
from experiments.compare.sides import Side
from testbed.record import RequestRow


def rows(ttft_ms: list[int], *, slo_ms: int = 100) -> tuple[RequestRow, ...]:
    return tuple(
        request_row(request=i, arrival_ns=i * MS, slo_ns=slo_ms * MS, ttft_ns=ttft * MS)
        for i, ttft in enumerate(ttft_ms)
    )


def side(label: str, ttft_ms: list[int], **changes: object) -> Side:
    made = Side(
        label=label,
        path=Path(label),
        policy=label,
        faithful=True,
        scale={"time_dilation": 1.0},
        fabric="sim",
        requests=rows(ttft_ms),
    )
    return msgspec.structs.replace(made, **changes)


def test_a_run_alone_says_what_it_met() -> None:
    """80, 90 and 120 ms: two of three within 100 ms, and 290 / 3 ms on average."""
    assert result_sentences([side("mfs", [80, 90, 120])]) == [
        "mfs met the SLO of 2 of 3 requests (66.7 %), with a mean TTFT of 96.7 ms."
    ]


def test_a_difference_that_is_the_same_for_every_request_is_stated_with_its_interval() -> None:
    """Each of 20 requests takes 90 instead of 110 ms, so all of them meet their SLO instead of none."""
    first, second = result_sentences([side("fair", [110] * 20), side("mfs", [90] * 20)])
    assert first == "fair met the SLO of 0 of 20 requests (0.0 %), with a mean TTFT of 110 ms."
    assert second == (
        "mfs met the SLO of 20 of 20 requests (100.0 %), with a mean TTFT of 90.0 ms. Against fair: +100.0"
        " points in SLO met [+100.0, +100.0], -20.0 ms in mean TTFT [-20.0, -20.0] ms."
    )


def test_a_difference_that_may_be_chance_is_not_shown() -> None:
    """Half of the requests take 10 ms more, half 10 ms less."""
    _, said = result_sentences([side("fair", [50] * 20), side("mfs", [40, 60] * 10)])
    assert (
        "Against fair: no difference shown in SLO met [+0.0, +0.0], no difference shown in mean TTFT" in said
    )


def test_few_requests_have_no_interval() -> None:
    _, said = result_sentences([side("fair", [110] * 2), side("mfs", [90] * 2)])
    assert "+100.0 points in SLO met (too few requests for an interval)" in said


def test_what_cannot_be_compared_is_not_compared() -> None:
    told = result_sentences([side("fair", [110] * 20), side("mfs", [90] * 20, faithful=False)])
    assert told[-1] == "No difference is stated: mfs is not faithful."
    assert not any("Against" in sentence for sentence in told)
    other = side("mfs (b)", [90] * 20, requests=rows([90] * 20, slo_ms=200))
    *_, last = result_sentences([side("mfs (a)", [90] * 20), other])
    assert last.startswith("No difference is stated: their SLOs differ in mfs (a) and mfs (b): slo.multiple")
