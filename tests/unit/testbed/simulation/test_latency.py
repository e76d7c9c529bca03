"""Latency of links: a message arrives when its last byte has left, plus the latency of its path."""

from pathlib import Path

import pytest
from collective_world import MB, all_to_all, collective, ends_ms, played, world

from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job
from testbed.record import RunRecord
from testbed.serving.plans.idle_network import layer_s
from testbed.topology import ServerShape, leaf_spine, rail_optimised
from workers.plan import CollectiveKind, Step

RING, RING_ATTENTION = CollectiveKind.ALL_REDUCE, CollectiveKind.RING_ATTENTION
LINK_NS = 100_000
"""0.1 ms. A path over the switch of a star has two links: 0.2 ms."""


def run(name: str, *settings: str) -> tuple[Job, RunRecord]:
    texts = ("fabric=sim", "policies=[fair]", *settings)
    (job,) = resolve(load_scenario(name, [override(text) for text in texts])).jobs
    record = FABRICS["sim"]().run(job, lambda _: None)
    assert [check.name for check in record.fidelity.checks if not check.ok] == []
    return job, record


def flows(*rows: str) -> str:
    return f"workload.flows=[{', '.join(rows)}]"


def test_a_flow_takes_the_latency_of_its_path_in_addition_and_no_bandwidth_for_it() -> None:
    """125 MB at 10 Gb/s are 100 ms. Two flows of half of it share the link until 100 ms."""
    rows = ("{id: a, src: h1, dst: h2, bytes: 62500000}", "{id: b, src: h1, dst: h2, bytes: 62500000}")
    _, record = run("two-flows", flows(*rows), "topology.nic_gbps=10", "topology.latency_us=100")
    assert [row.finish_ns for row in record.flows] == [100_200_000] * 2


def test_a_flow_that_waits_for_the_link_is_not_held_up_by_bytes_on_their_way() -> None:
    """a has left at 100 ms and arrives at 100.2 ms; b begins at 100 ms and has the link to itself."""
    rows = (
        "{id: a, src: h1, dst: h2, bytes: 125000000}",
        "{id: b, src: h1, dst: h3, bytes: 125000000, start_s: 0.1}",
    )
    _, record = run("two-flows", flows(*rows), "topology.nic_gbps=10", "topology.latency_us=100")
    assert {row.id: row.finish_ns for row in record.flows} == {"a": 100_200_000, "b": 200_200_000}


@pytest.mark.parametrize("grouped", [False, True])
def test_every_round_of_a_collective_takes_it(grouped: bool) -> None:
    """8 MB among 4 in a ring: 6 rounds of 2 ms. An all-to-all of 2 MB for each of 3 others: 6 ms at once."""
    ring, once = collective(RING, (8 * MB,)), all_to_all(4, 2 * MB)
    assert ends_ms(played(4, ring, grouped=grouped, latency_ns=LINK_NS)) == [13.2] * 4
    assert ends_ms(played(4, once, grouped=grouped, latency_ns=LINK_NS)) == [6.2] * 4


def test_compute_hides_it_in_ring_attention() -> None:
    """Blocks of 2 MB go round in 2.2 ms a round, three times. With 3 ms of compute nothing is to be seen."""
    for compute_ms, ends in ((3, 12.0), (1, 7.6)):
        step = collective(RING_ATTENTION, [2 * MB] * 4, rounds_s=[[compute_ms / 1000] * 4] * 4)
        record = played(4, step, latency_ns=LINK_NS)
        spans = [span for span in record.spans if span.rank == 0]
        assert max(span.end_ns for span in spans) / 1e6 == pytest.approx(ends)
        assert _idle_ms(step) == pytest.approx(ends)


def test_times_on_an_idle_network_have_it_too() -> None:
    assert _idle_ms(collective(RING, (8 * MB,))) == pytest.approx(13.2)
    assert _idle_ms(all_to_all(4, 2 * MB)) == pytest.approx(6.2)


def test_it_is_that_of_the_links_to_and_between_switches() -> None:
    """Two links below a leaf, four over a spine. NVLink has none."""
    topology = leaf_spine(leaves=2, spines=2, hosts_per_leaf=2, nic_bps=1, oversubscription=1.0)
    slow = topology.with_latency(LINK_NS)
    assert slow.latency_s([("h1", "h2")]) == pytest.approx(0.0002)
    assert slow.latency_s([("h1", "h2"), ("h1", "h3")]) == pytest.approx(0.0004)
    assert topology.latency_s([("h1", "h3")]) == 0.0
    rails = rail_optimised(
        servers=2,
        servers_per_group=2,
        spines=1,
        nic_bps=1,
        oversubscription=1.0,
        shape=ServerShape(gpus=2, nics=2, nvlink_bps=1),
    ).with_latency(LINK_NS)
    assert rails.latency_s([("h1.gpu0", "h1.gpu1")]) == 0.0
    assert rails.latency_s([("h1.gpu0", "h2.gpu1")]) == pytest.approx(0.0002)


def test_a_request_waits_for_it_as_its_unloaded_ttft_says() -> None:
    """One request on an idle cluster: 32 layers with two all-to-alls each, then the last S3. A path has
    0.2 ms, and 65 times that are 13 ms.
    """
    settings = ("workload.requests=1", "workers.lanes_s3=32")
    (_, before), (_, after) = (run("quickstart", *settings, f"topology.latency_us={us}") for us in (0, 100))
    (fast,), (slow,) = before.requests, after.requests
    assert fast.ttft_ns is not None
    assert slow.ttft_ns is not None
    assert slow.ttft_ns - fast.ttft_ns == pytest.approx(13_000_000, rel=0.01)
    assert slow.unloaded_ttft_ns - fast.unloaded_ttft_ns == pytest.approx(13_000_000, rel=0.01)


@pytest.mark.parametrize(("lanes", "added_ms"), [(1, 32 * 0.2), (2, 0.2)])
def test_a_single_lane_waits_for_the_latency_of_every_layer(lanes: int, added_ms: float) -> None:
    """One GPU sends the KV of 32 layers, for which the NIC takes longer than compute. A second lane hides the
    latency of all but the last.
    """
    one = (
        "units.prefill_units=1",
        "units.ranks_per_unit=1",
        "units.decode_ranks=1",
        f"workers.lanes_s3={lanes}",
    )
    settings = ("workload.requests=1", "model=llama-3-8b", "topology.nic_gbps=1", *one)
    ttfts = [
        run("quickstart", *settings, f"topology.latency_us={us}")[1].requests[0].ttft_ns for us in (0, 100)
    ]
    assert ttfts[0] is not None
    assert ttfts[1] is not None
    assert ttfts[1] - ttfts[0] == pytest.approx(added_ms * 1e6, abs=10)


def test_a_file_gives_each_link_its_own(tmp_path: Path) -> None:
    """50 Gb/s, 1.25 GB: 200 ms. 5 us to switch 4, and 1 ms from there."""
    path = tmp_path / "net.txt"
    links = "".join(f"{i} 4 50Gbps {'1ms' if i == 2 else '0.005ms'} 0\n" for i in range(4))
    path.write_text(f"5 1 4\n4\n{links}", encoding="utf-8")
    file = ("topology.kind=file", "topology.format=astra-sim", f"topology.path={path}")
    rows = ("{id: a, src: h1, dst: h3, bytes: 1250000000}",)
    _, record = run("two-flows", flows(*rows), *file)
    assert [row.finish_ns for row in record.flows] == [201_005_000]
    _, without = run("two-flows", flows(*rows), *file, "topology.latency_us=0")
    assert [row.finish_ns for row in without.flows] == [200_000_000]


def _idle_ms(step: Step) -> float:
    topology, placement = world(4)
    return layer_s([step], placement, topology.with_latency(LINK_NS)) * 1000
