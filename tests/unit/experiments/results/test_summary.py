"""What `summary.json` says about a run."""

import json
import math
from typing import Any

import msgspec
import pytest
from record_factory import faithful, micro_record, unfaithful
from result_rows import MS, flow_row, request_row

from controller.flow import Level, Stage
from experiments.results.folder_names import folder_names
from experiments.results.summary import Summary, summarise
from testbed.job import Scale
from testbed.record import Check, Fidelity, FlowOrder, RunRecord


def record(**changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "policy": "mfs",
        "fabric": "mininet",
        "requests": (),
        "flows": (),
        "decisions": (),
        "spans": (),
        "links": (),
        "progress": (),
        "permit_latency_ms": (),
        "fidelity": faithful(),
        "facts": {},
        "queues": {},
        "duration_ns": 2_000 * MS,
        "wall_s": 60.0,
    }
    return RunRecord(**(fields | changes))


def summary_of(*records: RunRecord) -> Summary:
    return summarise(
        scenario="s",
        fabric="mininet",
        seed=1,
        scale=Scale(time_dilation=30, bytes_scale=0.036),
        records=records,
    )


def test_a_serving_run_is_summed_up_in_model_seconds() -> None:
    # TTFT 100 and 200 ms: mean and median 0.15 s, p90 = 0.1 + 0.9 * 0.1 = 0.19 s. Of three arrived
    # requests one is within its SLO of 100 ms.
    run = summary_of(
        record(
            requests=(
                request_row(request=0, ttft_ns=100 * MS),
                request_row(request=1, ttft_ns=200 * MS),
                request_row(request=2, status="failed", ttft_ns=None),
            ),
            flows=(
                flow_row(deadline_ns=80 * MS, finish_ns=30 * MS, promotions=2, verified=True),
                flow_row(deadline_ns=80 * MS, finish_ns=70 * MS, promotions=1, verified=False),
                flow_row(stage=Stage.COLLECTIVE, coflow="c", submit_ns=0, finish_ns=4 * MS),
            ),
            permit_latency_ms=(1.0, 2.0, 3.0),
        )
    )["runs"][0]
    assert (run["requests"], run["completed"]) == (3, 2)
    assert run["slo_attainment"] == pytest.approx(1 / 3)
    assert run["ttft_s"]["mean"] == pytest.approx(0.15)
    assert run["ttft_s"]["p50"] == pytest.approx(0.15)
    assert run["ttft_s"]["p90"] == pytest.approx(0.19)
    assert run["cct_s"] == {"mean": pytest.approx(0.004), "p99": pytest.approx(0.004)}
    assert run["earliness_s"]["mean"] == pytest.approx(0.03)
    assert run["promotions"] == 3
    assert run["permit_latency_ms"] == {"p50": 2.0, "p99": pytest.approx(2.98)}
    assert run["flows_by_stage"] == {"S1": 0, "S2": 1, "S3": 2}
    assert run["verified"] == {"checked": 2, "failed": 1}
    assert run["duration_s"] == 2.0
    assert "flows" not in run


def test_a_run_says_whether_it_had_an_exact_order_or_levels() -> None:
    runs = summary_of(record(), record(order=FlowOrder.EXACT))["runs"]
    assert [run["order"] for run in runs] == ["levels", "exact"]


def test_a_micro_run_lists_its_flows_and_has_no_ttft() -> None:
    run = summary_of(micro_record())["runs"][0]
    assert run["ttft_s"] == {"mean": None, "p50": None, "p90": None, "p99": None}
    assert run["slo_attainment"] is None
    assert run["flows"][1] == {
        "id": "low",
        "stage": "S3",
        "start_s": 0.0,
        "finish_s": 0.321,
        "deadline_s": 0.4,
        "lateness_s": 0.0,
        "level_first": Level.P6.name,
        "level_last": Level.P1.name,
        "promotions": 1,
    }


def test_one_unfaithful_run_makes_the_whole_unfaithful() -> None:
    assert summary_of(record(), record(policy="fair"))["faithful"] is True
    assert summary_of(record(), record(policy="fair", fidelity=unfaithful()))["faithful"] is False
    assert summary_of()["faithful"] is False


def test_a_measure_that_is_not_a_number_becomes_null() -> None:
    check = Check(name="rate", value=math.nan, bound=">= 1", unit="", ok=False, advice="")
    summary = summary_of(record(fidelity=Fidelity(faithful=False, checks=(check,))))
    text = json.dumps(summary, allow_nan=False)
    assert json.loads(text)["runs"][0]["fidelity"]["checks"][0]["value"] is None


def test_the_order_of_keys_does_not_depend_on_the_data() -> None:
    full, empty = summary_of(record(requests=(request_row(),))), summary_of(record())
    assert list(full["runs"][0]) == list(empty["runs"][0])
    first = ["scenario", "fabric", "seed", "faithful", "complete", "unfinished", "scale", "notes"]
    assert list(full)[: len(first)] == first


def test_policies_get_distinct_folders_with_harmless_names() -> None:
    names = folder_names(["mfs", "mfs:U=0.3,E=4", "mfs:U=0.3/E=4", "../..", "µ"])
    assert names == ["mfs", "mfs-U=0.3-E=4", "mfs-U=0.3-E=4-2", "policy", "policy-2"]


def test_the_scale_stands_in_the_summary() -> None:
    scale = summary_of(record())["scale"]
    assert msgspec.convert(scale, Scale) == Scale(time_dilation=30, bytes_scale=0.036)


def test_flows_that_beat_their_line_are_noted() -> None:
    told = summary_of(
        record(policy="fair", facts={"faster_than_line": 0.2871}),
        record(policy="stage", facts={"faster_than_line": 0.009}),
        record(facts={"faster_than_line": 0.01}),
    )["notes"]
    assert told[-1] == (
        "an idle port passes two packets at once, so short S1 and S3 flows beat the line:"
        " 28.7% of them with fair, 1.0% of them with mfs"
    )
    silent = summary_of(record(facts={"faster_than_line": 0.009}), record(policy="fair"))["notes"]
    assert not any("beat the line" in note for note in silent)
