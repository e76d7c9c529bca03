"""All policies on the batches that one of them forms."""

import pytest

from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job
from testbed.record import RunRecord

POLICIES = 'policies=["fair", "sjf"]'


def jobs(*settings: str) -> dict[str, Job]:
    texts = ("fabric=sim", "workload.requests=24", "workload.load=1", POLICIES, *settings)
    resolved = resolve(load_scenario("quickstart", [override(text) for text in texts]))
    return {job.policy: job for job in resolved.jobs}


def run(job: Job) -> RunRecord:
    return FABRICS["sim"]().run(job, lambda state: None)


def batches(record: RunRecord) -> set[frozenset[int]]:
    together: dict[str | None, set[int]] = {}
    for row in record.requests:
        together.setdefault(row.batch, set()).add(row.request)
    return {frozenset(each) for each in together.values()}


def test_every_policy_runs_the_batches_of_the_one_that_is_named() -> None:
    own = {policy: batches(run(job)) for policy, job in jobs().items()}
    same = {policy: batches(run(job)) for policy, job in jobs("serving.batches_of=fair").items()}

    assert own["fair"] != own["sjf"]  # else the test shows nothing
    assert same == {"fair": own["fair"], "sjf": own["fair"]}


def test_the_policy_that_is_named_runs_as_it_would_by_itself() -> None:
    by_itself, replayed = run(jobs()["fair"]), run(jobs("serving.batches_of=fair")["fair"])

    assert replayed.requests == by_itself.requests
    assert list(replayed.flows) == list(by_itself.flows)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        (["serving.batches_of=fair + requests"], r"fair \+ requests decides on requests itself"),
        (
            ["serving.batches_of=fair", 'policies=["fair", "mfs + requests"]'],
            r"mfs \+ requests decides on requests itself",
        ),
        (["serving.batches_of=fair", "serving.chunk_tokens=256"], "cannot be formed again: .* split prompts"),
    ],
)
def test_batches_that_are_not_the_same_for_all_are_refused(settings: list[str], complaint: str) -> None:
    with pytest.raises(UserError, match=f"serving.batches_of: .*{complaint}"):
        jobs(*settings)


def test_a_policy_that_does_not_exist_is_refused_before_anything_runs() -> None:
    with pytest.raises(UserError, match="there is no policy 'fairr'"):
        jobs("serving.batches_of=fairr")
