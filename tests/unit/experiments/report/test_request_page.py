"""The page of one request: its timeline and its story under each policy, by its number."""

from pathlib import Path

import numpy as np
import pytest
from record_factory import RESOURCES, serving_record
from result_rows import MS, flow_row, request_row, span_row

from controller.flow import Decision, Level, Stage
from experiments.errors import UserError
from experiments.explain.request_life import RequestLife
from experiments.report.request_figures import left_out, timeline_figure, timeline_legend
from experiments.report.request_page import write_request_page
from experiments.results.link_rates import LinkRate
from experiments.results.writing import write_run
from testbed.job import Scale
from workers.spans import SpanKind


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    write_run(
        out,
        scenario="small",
        fabric="sim",
        seed=3,
        scale=Scale(time_dilation=1, bytes_scale=1),
        resolved_yaml="name: small\n",
        notes=[],
        records=[serving_record("fair", requests=8, layers=3, slow=1.3), serving_record(requests=8)],
        placement_text=[],
        resources=RESOURCES,
    )
    return out


def test_a_request_has_a_timeline_and_a_story_under_each_policy(run: Path) -> None:
    source = write_request_page([run], 2, run / "request-2.html").read_text()
    assert source.count("<svg") == 2
    for policy in ("fair", "mfs"):
        assert f"<h2>Under {policy}</h2>" in source
        assert f"Request 2 under {policy}" in source
    assert source.index("Under fair: Request 2 met its SLO") < source.index("Faithful.")


def test_a_policy_is_chosen(run: Path) -> None:
    source = write_request_page([run], 2, run / "one.html", "mfs").read_text()
    assert source.count("<svg") == 1
    with pytest.raises(UserError, match="did you mean 'mfs'"):
        write_request_page([run], 2, run / "one.html", "mf")


def test_a_request_without_a_first_token_has_only_a_story(run: Path) -> None:
    source = write_request_page([run], 7, run / "failed.html", "mfs").read_text()
    assert "<svg" not in source
    assert "no timeline" in source
    assert "missed its SLO: it failed" in source


def test_an_unknown_request_is_refused_with_those_that_exist(run: Path) -> None:
    with pytest.raises(UserError, match="no request 99 under fair and mfs; there are 0 to 7"):
        write_request_page([run], 99, run / "none.html")


def a_life(*, flows: int = 1, ranks: int = 1) -> RequestLife:
    """It arrives at 0, is prefilled from 20 to 60 ms in one layer, and has its first token at 100 ms."""
    request = request_row(
        request=5,
        batch="b0",
        arrival_ns=0,
        start_ns=20 * MS,
        prefill_end_ns=60 * MS,
        p2d_end_ns=90 * MS,
        first_token_ns=100 * MS,
        ttft_ns=100 * MS,
        slo_ns=110 * MS,
    )
    return RequestLife(
        request=request,
        spent=None,
        flows=tuple(
            flow_row(
                id=f"f{i}",
                stage=Stage.P2D,
                request=5,
                submit_ns=30 * MS,
                permit_ns=40 * MS,
                finish_ns=(90 + i) * MS,
                level_first=Level.P6,
                level_last=Level.P1,
                path=("a", "b"),
            )
            for i in range(flows)
        ),
        shares=(),
        spans=tuple(
            span_row(rank, SpanKind.COMPUTE, 20, 60 - rank, batch="b0", layer=0) for rank in range(ranks)
        ),
    )


def test_a_flow_is_drawn_at_each_of_its_levels() -> None:
    """It was on P6 from 40 to 60 ms, then on P1: a bar of each colour, and a grey one before the permit."""
    decisions = {
        "f0": [
            Decision(time_ns=30 * MS, flow="f0", level_from=None, level_to=Level.P6, reason=""),
            Decision(time_ns=60 * MS, flow="f0", level_from=Level.P6, level_to=Level.P1, reason=""),
        ]
    }
    drawn = timeline_figure(a_life(), decisions, {}, {})
    assert "#5b62b3" in drawn  # P6
    assert "#c0392b" in drawn  # P1
    assert "#3a8fb5" not in drawn  # P5
    legend = timeline_legend(a_life())
    assert "P6" in legend
    assert "P5" not in legend


def test_the_slowest_ranks_and_flows_and_the_busiest_links_are_shown_and_others_are_named() -> None:
    assert left_out(a_life()) == ""
    drawn = timeline_figure(a_life(ranks=6, flows=300), {}, {}, {})
    assert "rank 3" in drawn
    assert "rank 4" not in drawn
    said = left_out(a_life(ranks=6, flows=300))
    assert said == " Only the 4 slowest of 6 ranks, the slowest 240 of 300 flows and collectives are shown."


def test_links_without_a_known_rate_are_left_out() -> None:
    rate = LinkRate(np.array([0, 200 * MS]), np.full((1, 8), 1e9))
    drawn = timeline_figure(a_life(), {}, {"a": rate, "b": rate}, {"a": 10.0})
    assert ">a<" in drawn
    assert ">b<" not in drawn
