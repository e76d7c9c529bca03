"""Small runs of the simulated fabric that can be worked out on paper.

A NIC carries 10 Gb/s, which is 1.25 MB in a millisecond: 125 MB take 100 ms alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pytest

from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.job import Job, MicroFlow
from testbed.record import FlowRow, RunRecord

MB = 1_000_000
MS = 1_000_000


def job(rows: Sequence[Mapping[str, Any]], policy: str, *settings: str) -> Job:
    """The job of a micro scenario. In a row, `at_ms` and `due_ms` are milliseconds, `mb` 10**6 bytes."""
    flows = [
        {
            "id": row["id"],
            "src": row["src"],
            "dst": row["dst"],
            "bytes": round(row["mb"] * MB),
            "start_s": row.get("at_ms", 0) / 1000,
            "stage": row.get("stage", "S3"),
            **({"deadline_s": row["due_ms"] / 1000} if "due_ms" in row else {}),
        }
        for row in rows
    ]
    texts = [f'policies=["{policy}"]', "fabric=sim", "topology.servers=5", "topology.nic_gbps=10"]
    texts += [f"workload.flows={msgspec.json.encode(flows).decode()}", *settings]
    return resolve(load_scenario("two-flows", [override(text) for text in texts])).jobs[0]


def run(a_job: Job) -> RunRecord:
    record = FABRICS["sim"]().run(a_job, lambda progress: None)
    assert [check.name for check in record.fidelity.checks if not check.ok] == []
    return record


def ends_ms(a_job: Job) -> dict[str, float]:
    return {row.id: row.finish_ns / MS for row in run(a_job).flows}


# --- sharing ----------------------------------------------------------------------------------------


def test_two_flows_share_an_uplink_until_the_smaller_one_is_through() -> None:
    """Half of 1.25 MB/ms each: the 50 MB have arrived at 80 ms, as have 50 of the 100 MB; the other 50 take
    40 ms more."""
    rows = [
        {"id": "large", "src": "h1", "dst": "h2", "mb": 100},
        {"id": "small", "src": "h1", "dst": "h3", "mb": 50},
    ]
    assert ends_ms(job(rows, "fair")) == {"large": 120, "small": 80}


def test_what_a_flow_cannot_use_of_an_uplink_goes_to_its_neighbour() -> None:
    """Three flows into h3 have a third of its downlink each: 125 MB in 300 ms. So `beside`, which shares h1's
    uplink with one of them, has two thirds: 250 of its 375 MB by then, and the rest alone in 100 ms."""
    rows = [
        {"id": "in1", "src": "h1", "dst": "h3", "mb": 125},
        {"id": "in4", "src": "h4", "dst": "h3", "mb": 125},
        {"id": "in5", "src": "h5", "dst": "h3", "mb": 125},
        {"id": "beside", "src": "h1", "dst": "h2", "mb": 375},
    ]
    assert ends_ms(job(rows, "fair")) == {"in1": 300, "in4": 300, "in5": 300, "beside": 400}


def test_stages_with_links_of_their_own_are_in_nobody_elses_way() -> None:
    """The two S3 flows have half of h1's uplink each, 50 MB in 80 ms; the S1 flow has one of its own: 40 ms.
    Together all three would have taken 120 ms."""
    rows = [
        {"id": "p2d1", "src": "h1", "dst": "h2", "mb": 50, "stage": "S3"},
        {"id": "p2d2", "src": "h1", "dst": "h3", "mb": 50, "stage": "S3"},
        {"id": "reuse", "src": "h1", "dst": "h2", "mb": 50, "stage": "S1"},
    ]
    assert ends_ms(job(rows, "fair", "simulation.separate=true")) == {"p2d1": 80, "p2d2": 80, "reuse": 40}
    assert ends_ms(job(rows, "fair")) == {"p2d1": 120, "p2d2": 120, "reuse": 120}


def test_stages_share_a_downlink_by_the_weights_of_their_levels() -> None:
    """3 : 1 of 1.25 MB/ms into h3. S2 has sent 75 MB at 80 ms, S3 25 MB by then; its other 50 take 40 ms."""
    rows = [
        {"id": "s2", "src": "h1", "dst": "h3", "mb": 75, "stage": "S2"},
        {"id": "s3", "src": "h2", "dst": "h3", "mb": 75, "stage": "S3"},
    ]
    assert ends_ms(job(rows, "static(s1=2, s2=1, s3=2, weights=3:1)")) == {"s2": 80, "s3": 120}
    assert ends_ms(job(rows, "static(s1=2, s2=1, s3=2)")) == {"s2": 60, "s3": 120}


# --- priority ---------------------------------------------------------------------------------------


def test_each_stage_interrupts_the_one_below_it_and_what_is_left_goes_on() -> None:
    """Into h3, S3 alone 100 ms, S1 20, S2 10. S3 0-20, S1 20-30, S2 30-40, S1 its other half 40-50, S3 its
    other 80 ms from 50 on."""
    rows = [
        {"id": "s3", "src": "h1", "dst": "h3", "mb": 125, "stage": "S3"},
        {"id": "s1", "src": "h2", "dst": "h3", "mb": 25, "at_ms": 20, "stage": "S1"},
        {"id": "s2", "src": "h4", "dst": "h3", "mb": 12.5, "at_ms": 30, "stage": "S2"},
    ]
    assert ends_ms(job(rows, "stage")) == {"s3": 130, "s1": 50, "s2": 40}


def test_a_lower_level_gets_what_a_higher_one_leaves_of_a_port() -> None:
    """The two S2 flows share h1's uplink: 50 MB each by 80 ms. One of them leaves half of h3's downlink to
    the S3 flow: 50 of its 100 MB by then, the others in 40 ms."""
    rows = [
        {"id": "high3", "src": "h1", "dst": "h3", "mb": 50, "stage": "S2"},
        {"id": "high4", "src": "h1", "dst": "h4", "mb": 50, "stage": "S2"},
        {"id": "low", "src": "h2", "dst": "h3", "mb": 100, "stage": "S3"},
    ]
    assert ends_ms(job(rows, "stage")) == {"high3": 80, "high4": 80, "low": 120}


def test_in_exact_order_a_flow_due_later_gets_its_pace_and_no_more() -> None:
    """`karuna` sends 125 MB that are due at 400 ms at a quarter of the rate, all the time. Three quarters of
    the downlink, 0.9375 MB/ms, are left to the other flow: 93.75 MB in 100 ms. Then they stay idle."""
    rows = [
        {"id": "due", "src": "h1", "dst": "h3", "mb": 125, "due_ms": 400},
        {"id": "other", "src": "h2", "dst": "h3", "mb": 93.75, "stage": "S1"},
    ]
    ends = ends_ms(job(rows, "karuna", "simulation.order=exact"))
    # A pace is in whole bits per second, rounded up at every look: a little early, never late.
    assert ends == {"due": pytest.approx(400, abs=0.001), "other": pytest.approx(100, abs=0.001)}
    assert ends["due"] <= 400


def test_in_a_hybrid_hosts_keep_the_order_and_switches_know_levels() -> None:
    """`fifo` on three flows of one level: `a` is 10 ms older than `b`, which h1 sends too, and 20 than `c`.

    At h1, `a` goes before `b`. Into h3, `a` and `c` share from 20 ms on. So `c` has sent its 40 MB at 84 ms,
    and `a` 65 of 100 by then; its other 35 take 28 ms. Meanwhile `b` had what `a` left of h1: 40 of its 50 MB
    from 20 to 84 ms, and nothing until 112 ms. In exact order everywhere, `a` has 80 ms to itself, and then
    `c` and `b` follow.
    """
    rows = [
        {"id": "a", "src": "h1", "dst": "h3", "mb": 100},
        {"id": "b", "src": "h1", "dst": "h4", "mb": 50, "at_ms": 10},
        {"id": "c", "src": "h2", "dst": "h3", "mb": 40, "at_ms": 20},
    ]
    assert ends_ms(job(rows, "fifo", "simulation.order=hybrid")) == {"a": 112, "b": 120, "c": 84}
    assert ends_ms(job(rows, "fifo", "simulation.order=exact")) == {"a": 80, "b": 120, "c": 112}


# --- paths ------------------------------------------------------------------------------------------


def spine(row: FlowRow) -> str:
    return row.path[1].removeprefix("leaf1->")


def test_flows_on_one_spine_share_its_links_and_on_two_they_do_not() -> None:
    """Two leaves, two spines, h1 and h2 below the one, h3 and h4 below the other; an uplink of a leaf is as
    fast as a NIC. 125 MB from h1 to h3 and from h2 to h4 take 100 ms on two spines and 200 ms on one."""
    rows = [
        {"id": "a", "src": "h1", "dst": "h3", "mb": 125},
        {"id": "b", "src": "h2", "dst": "h4", "mb": 125},
    ]
    shape = ["topology.kind=leaf-spine", "topology.hosts_per_leaf=2"]
    met = set()
    for seed in range(1, 13):
        a, b = run(job(rows, "fair", *shape, f"seed={seed}")).flows
        together = spine(a) == spine(b)
        assert {a.finish_ns, b.finish_ns} == {(200 if together else 100) * MS}
        met.add(together)
    assert met == {True, False}


# --- what has no bytes on the network ---------------------------------------------------------------


def test_a_flow_without_bytes_is_through_at_once_and_in_nobodys_way() -> None:
    rows = [{"id": "busy", "src": "h1", "dst": "h3", "mb": 125}]
    alone = job(rows, "fair")
    empty = MicroFlow(
        transfer=msgspec.structs.replace(alone.flows[0].transfer, id="empty", size_bytes=0), start_ns=50 * MS
    )
    assert ends_ms(msgspec.structs.replace(alone, flows=(*alone.flows, empty))) == {"busy": 100, "empty": 50}


def test_a_flow_between_ranks_of_one_server_takes_no_time_and_no_link() -> None:
    """A second rank on h1 is sent 125 MB while h1's uplink is busy."""
    rows = [{"id": "busy", "src": "h1", "dst": "h3", "mb": 125}]
    alone = job(rows, "fair")
    ranks = alone.placement.ranks
    beside = msgspec.structs.replace(ranks[0], rank=len(ranks), index=len(ranks))
    inside = MicroFlow(
        transfer=msgspec.structs.replace(alone.flows[0].transfer, id="inside", dst=beside.rank),
        start_ns=50 * MS,
    )
    with_both = msgspec.structs.replace(
        alone,
        placement=msgspec.structs.replace(alone.placement, ranks=(*ranks, beside)),
        flows=(*alone.flows, inside),
    )
    assert ends_ms(with_both) == {"busy": 100, "inside": 50}
    assert {row.id: row.path for row in run(with_both).flows}["inside"] == ()
