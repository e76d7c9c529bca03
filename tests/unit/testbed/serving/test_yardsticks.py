"""What delays are measured against, worked out on the tiny world."""

import emulated_world
import msgspec
import pytest
from serving_world import GPU, MOE, placed

from controller.flow import Stage
from testbed.job import Job, Request
from testbed.serving.slo import IdleCluster
from testbed.serving.yardsticks import yardsticks


def test_the_times_of_a_layer_are_those_behind_the_unloaded_ttft() -> None:
    """8 tokens, 4 of them reused (see `test_slo`): attention 2.112 s and experts 1.536 s; dispatch and
    combine 0.32 s each; S1 0.64 s, S3 1.28 s.
    """
    topology, placement = placed()
    cluster = IdleCluster(placement=placement, model=MOE, gpu=GPU, topology=topology)
    times = cluster.layer_times(8, 4)
    assert times.compute_s == pytest.approx(3.648)
    assert times.whole_s == pytest.approx(4.288)
    assert times.transfers_s == pytest.approx({Stage.KV_REUSE: 0.64, Stage.COLLECTIVE: 0.32, Stage.P2D: 1.28})


def test_without_reuse_a_layer_has_no_s1() -> None:
    topology, placement = placed()
    cluster = IdleCluster(placement=placement, model=MOE, gpu=GPU, topology=topology)
    assert set(cluster.layer_times(8, 0).transfers_s) == {Stage.COLLECTIVE, Stage.P2D}


def job_of(*prompts: tuple[int, int]) -> Job:
    """Prompts that share nothing, by their tokens and unloaded TTFT."""
    topology, placement = placed()
    requests = tuple(
        Request(
            id=i,
            arrival_ns=0,
            prompt_tokens=tokens,
            output_tokens=1,
            blocks=(),
            block_tokens=4,
            unloaded_ns=unloaded_ns,
        )
        for i, (tokens, unloaded_ns) in enumerate(prompts)
    )
    job = emulated_world.serving_job(topology)
    return msgspec.structs.replace(job, placement=placement, model=MOE, gpu=GPU, requests=requests)


def test_the_yardsticks_are_those_of_the_median_request() -> None:
    """8 tokens without reuse: dispatch and combine 0.64 s each, compute 3.712 + 3.072 s, TTFT 18.752 s."""
    found = yardsticks(job_of((400, 900), (8, 500), (4, 100)))
    assert found.transfer is not None
    assert found.compute is not None
    assert found.whole is not None
    assert found.transfer.seconds == pytest.approx(0.64)
    assert found.transfer.name == "the S2 of a layer of the median request alone"
    assert found.compute.seconds == pytest.approx(6.784)
    assert found.whole.seconds == pytest.approx(18.752)


def test_single_flows_are_measured_against_short_and_median_flows() -> None:
    """At 8 Mb/s, 1 MB takes a second. Of ten flows, one is shorter than the short one."""
    sizes = (1e3, 1e6, 2e6, 3e6, 4e6, 5e6, 6e6, 7e6, 8e6, 9e6)
    flows = [
        emulated_world.flow(f"f{i}", "h1->h2", size, start_s=0, stage=Stage.P2D)
        for i, size in enumerate(sizes)
    ]
    found = yardsticks(emulated_world.micro_job(*flows, servers=2, mbps=8))
    assert found.transfer is not None
    assert found.whole is not None
    assert (found.transfer.seconds, found.whole.seconds) == (1.0, 5.0)
    assert found.compute == found.transfer
