"""What is told before a run whose results would say less than they seem to."""

from pathlib import Path

import msgspec
import pytest
from trace_files import mooncake, trace

from experiments.resolve.doubts import doubts
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.job import Job


def job_of(scenario: str, *settings: str) -> Job:
    texts = ["fabric=sim", *settings]
    return resolve(load_scenario(scenario, [override(text) for text in texts])).jobs[0]


def test_there_is_nothing_to_doubt_in_the_quickstart() -> None:
    assert doubts(job_of("quickstart")) == ()


def test_deadlines_that_no_policy_can_meet_are_told() -> None:
    """A flow of 1.25 GB at 10 Gb/s takes 1 s alone. With 2 s of a start it is late at 2.5 s."""
    flow = "{id: %s, src: h1, dst: h3, bytes: 1250000000, start_s: %s, deadline_s: %s}"
    flows = ", ".join(flow % one for one in [("a", 0, 1), ("b", 2, 2.5), ("c", 0, 0.9), ("d", 0, 0.999)])
    assert doubts(job_of("two-flows", f"workload.flows=[{flows}]")) == (
        "late even alone on idle links: c, d, b (deadline_s)",
    )
    more = ", ".join(flow % (name, 0, 0.5) for name in "abcde")
    assert doubts(job_of("two-flows", f"workload.flows=[{more}]")) == (
        "late even alone on idle links: a, b, c and 2 more (deadline_s)",
    )


def test_an_slo_below_the_unloaded_ttft_is_told() -> None:
    """The warm-up does not count."""
    settings = ["slo.multiple=0.9", "workload.requests=48", "workload.warmup=8"]
    assert doubts(job_of("quickstart", *settings)) == (
        "40 of 40 requests are promised less than their unloaded TTFT (slo.multiple, slo.absolute_s, "
        "slo.classes): hardly any policy can meet their SLO",
    )
    assert doubts(job_of("quickstart", "slo.multiple=1")) == ()


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        (20, ()),
        (
            8,
            (
                "few requests are measured, 8: the SLO attainment moves in steps of 12.5 %, and p99 is close "
                "to the slowest request (workload.requests)",
            ),
        ),
    ],
)
def test_few_requests_are_told(measured: int, told: tuple[str, ...]) -> None:
    assert doubts(job_of("quickstart", "workload.requests=48", f"workload.warmup={48 - measured}")) == told


def test_a_workload_that_is_over_before_its_first_prefill_is_told(tmp_path: Path) -> None:
    path = trace(tmp_path, *[mooncake(t) for t in range(30)])
    job = job_of("quickstart", f"workload.path={path}", "workload.requests=30", "workload.time_scale=1")
    unloaded_ns = sorted(request.unloaded_ns for request in job.requests)[15]
    assert unloaded_ns > 29_000_000

    (told,) = doubts(job)

    assert told.startswith("all 30 requests arrive within 29.0 ms, and one alone takes ")
    apart = [msgspec.structs.replace(r, arrival_ns=r.arrival_ns * 1000) for r in job.requests]
    assert doubts(msgspec.structs.replace(job, requests=tuple(apart))) == ()
