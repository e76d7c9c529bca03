"""A run that records only what a summary needs has the same summary."""

import msgspec
import pytest

from experiments.json_text import json_text
from experiments.resolve.jobs import resolve
from experiments.results.distributions import distributions
from experiments.results.limits import Resources
from experiments.results.measures import measure
from experiments.results.summary import summarise
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Collect
from testbed.record import RunRecord


def played(collect: Collect, scenario: str, policy: str, *settings: str) -> RunRecord:
    texts = (f'policies=["{policy}"]', "fabric=sim", *settings)
    job = resolve(load_scenario(scenario, [override(text) for text in texts])).jobs[0]
    return FABRICS["sim"]().run(msgspec.structs.replace(job, collect=collect), lambda progress: None)


def summary(record: RunRecord) -> str:
    job = resolve(load_scenario("quickstart", [override("fabric=sim")])).jobs[0]
    return json_text(
        summarise(
            scenario="s",
            fabric="sim",
            seed=1,
            scale=job.scale,
            records=[record],
            resources=Resources.of(job),
        )
    )


@pytest.mark.parametrize(
    ("scenario", "policy", "settings"),
    [
        ("quickstart", "mfs", ("workload.requests=12",)),
        ("quickstart", "fair", ("workload.requests=12", "simulation.order=exact", "workload.warmup=3")),
        ("quickstart", "mfs", ("workload.requests=12", "serving.chunk_tokens=512")),
        ("two-flows", "mfs", ()),
        ("coflow-small", "sebf", ()),
    ],
)
def test_the_summary_is_the_same(scenario: str, policy: str, settings: tuple[str, ...]) -> None:
    whole = played(Collect.ALL, scenario, policy, *settings)
    little = played(Collect.SUMMARY, scenario, policy, *settings)
    assert summary(little) == summary(whole)
    assert msgspec.json.encode(distributions(measure(little))) == msgspec.json.encode(
        distributions(measure(whole))
    )
    assert little.requests == whole.requests
    assert list(little.flows) == list(whole.flows)


def test_what_a_summary_does_not_need_is_not_there() -> None:
    whole = played(Collect.ALL, "quickstart", "mfs", "workload.requests=12")
    little = played(Collect.SUMMARY, "quickstart", "mfs", "workload.requests=12")
    assert len(whole.decisions) > 0
    assert len(little.decisions) == 0
