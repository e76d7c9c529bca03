"""The section `workload`: the kind of a trace, and keys that exclude each other."""

from pathlib import Path

import pytest
from trace_files import BURSTGPT, bailian, trace

from experiments.errors import UserError
from experiments.scenario.reading import load_scenario, override
from experiments.scenario.workload import WorkloadKind


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ([BURSTGPT, "5,GPT-4,10,1,11,API log"], WorkloadKind.BURSTGPT),
        ([bailian()], WorkloadKind.BAILIAN),
    ],
)
def test_a_path_beside_a_generated_kind_means_that_trace(
    tmp_path: Path, lines: list[str], kind: WorkloadKind
) -> None:
    path = trace(tmp_path, *lines)

    scenario = load_scenario("quickstart", [override(f"workload.path={path}")])

    assert scenario.workload.kind is kind


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["workload.class_from=type"], "workload.class_from: names a column of a trace"),
        (
            ["workload.class_from=type", "workload.path=x", "workload.kind=bailian", "workload.class=y"],
            "only one",
        ),
        (["workload.kind=burstgpt"], "burstgpt needs workload.path"),
        (
            ["workload.warmup=48"],
            "workload.warmup: 48 requests warm up: at least one more is needed to measure; "
            "workload.requests is 48 (scenario quickstart, line 22)",
        ),
        (
            ["workload.time_scale=1"],
            "--set workload.time_scale=1: workload.time_scale: stretches a trace; "
            "the arrivals of kind agent need workload.load or workload.rate",
        ),
        (["workload.load=null"], "workload.load: random arrivals need a load or a rate"),
        (["workload.arrivals=bursty"], "workload.dispersion: arrivals: bursty needs it"),
        (["workload.dispersion=3"], "workload.dispersion: applies to arrivals: bursty only"),
        (["workload.burst_s=3"], "workload.burst_s: applies to arrivals: bursty only"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(settings: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_scenario("quickstart", [override(text) for text in settings])
    assert told in str(caught.value)
