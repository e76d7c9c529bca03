"""Whole requests under the policies, on an ideal network: serving system, plans and scheduler together.

Sizes are those of the quickstart, with fewer requests. Experiments compare the policies; the tests here are
what must hold for such a comparison to mean anything.
"""

import functools

import msgspec
import pytest
from fluid_cluster import FluidCluster, Outcome

from controller.flow import Level
from controller.scheduler import Scheduler
from controller.spec import read_spec
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.job import Job

SPECS = (
    "fair",
    "fifo",
    "hermod",
    "sjf",
    "edf",
    "edf-all",
    "karuna",
    "pias",
    "sebf",
    "aalo",
    "stage",
    "static(s1=2, s2=3, s3=1)",
    "llf",
    "mfs",
    "triage",
    "reverse",
)


@functools.cache
def job_of(*settings: str) -> Job:
    scenario = load_scenario("quickstart", [override(text) for text in settings])
    return resolve(scenario).jobs[0]


@functools.cache
def outcome(spec: str, *settings: str, exact: bool = False) -> Outcome:
    job = job_of(*settings)
    options = {name: getattr(job.scheduler, name) for name in job.scheduler.__struct_fields__}
    read = read_spec(spec, **options)
    scheduler = Scheduler(
        read.policy,
        ports={link.id: link.bps for link in job.topology.links},
        exact=exact,
        control=read.control,
    )
    return FluidCluster(msgspec.structs.replace(job, policy=spec, control=read.control), scheduler).run()


BUSY = ("workload.requests=32", "workload.load=0.5")


@pytest.mark.parametrize("spec", SPECS)
def test_a_request_alone_takes_little_more_than_its_unloaded_ttft(spec: str) -> None:
    """There is nothing to schedule but the request's own S3 against the collectives of its later layers.

    With S2 before S3 this costs nothing. Karuna may stretch S3 up to the deadline.
    """
    job = job_of("workload.requests=1")
    [request] = job.requests

    ttft_ns = outcome(spec, "workload.requests=1").ttft_ns[request.id]

    assert ttft_ns >= 0.999 * request.unloaded_ns
    if spec == "karuna":
        assert ttft_ns <= request.slo_ns
    else:
        assert ttft_ns <= (1.01 if spec in ("mfs", "stage", "llf") else 1.05) * request.unloaded_ns


@pytest.mark.parametrize("spec", [*SPECS, "fair+requests", "mfs+requests"])
def test_every_request_gets_its_first_token(spec: str) -> None:
    assert len(outcome(spec, *BUSY).ttft_ns) == 32


@pytest.mark.parametrize("spec", ["mfs", "mfs+requests"])
def test_two_plays_of_one_job_are_the_same_to_the_nanosecond(spec: str) -> None:
    assert outcome.__wrapped__(spec, *BUSY).ttft_ns == outcome(spec, *BUSY).ttft_ns


def test_what_compute_waits_for_is_through_sooner_under_mfs_than_under_fair_sharing() -> None:
    """Collectives are on P2 and S3 is deferred, so collectives share only with what is as urgent."""
    assert outcome("mfs", *BUSY).mean_collective_ms < outcome("fair", *BUSY).mean_collective_ms


def test_the_negative_control_loses_to_the_oracle() -> None:
    for exact in (False, True):
        worst, best = outcome("reverse", *BUSY, exact=exact), outcome("llf", *BUSY, exact=exact)
        assert worst.mean_ttft_ms > best.mean_ttft_ms
        assert worst.attainment < best.attainment


def test_mfs_only_promotes_through_a_whole_run() -> None:
    """The levels of every flow, as the scheduler assigned them. No request is pruned here."""
    lives = outcome("mfs", *BUSY).levels.values()

    assert any(len(set(levels)) > 1 for levels in lives)
    assert all(levels == sorted(levels, reverse=True) for levels in lives)


def test_request_control_prunes_where_there_is_too_much_and_frees_again() -> None:
    crowd = ("workload.requests=32", "workload.load=1.5", "slo.multiple=2")
    lives = outcome("mfs+requests", *crowd).levels.values()

    pruned = [levels for levels in lives if Level.SCAVENGER in levels]
    assert pruned
    assert all(Level.SCAVENGER not in levels for levels in outcome("mfs", *crowd).levels.values())
