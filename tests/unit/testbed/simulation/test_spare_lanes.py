"""Where flows do not wait for lanes: which paths the spare lanes take, in whole simulated runs."""

from collections import defaultdict

import msgspec
from serving_world import DENSE, job, prompt

from controller.flow import Stage
from testbed.job import Job, SimulationOptions
from testbed.placement import Layout, place
from testbed.record import FlowRow, RunRecord
from testbed.simulation.run import SimulatedRun
from testbed.topology import leaf_spine

Path = tuple[str, ...]


def two_paths(*, requests: int = 7) -> Job:
    """Ranks 0 and 1 below leaf1 prefill, rank 2 below leaf2 decodes; two spines are between the leaves.

    Request 0 is a batch alone, and the others, which are there while it runs, are the next batch. In each
    of the two layers, a prefill rank sends as many S3 flows to rank 2 as the batch has requests. The model
    is small enough for the flows of a layer to be through before the next one.
    """
    topology = leaf_spine(leaves=2, spines=2, hosts_per_leaf=2, nic_bps=800, oversubscription=1.0)
    placement = place(
        topology,
        prefill_units=1,
        ranks_per_unit=2,
        decode_ranks=1,
        ranks_per_server=None,
        tp=None,
        ep=None,
        layout=Layout.SPREAD,
        model=DENSE,
    )
    made = job(topology, placement, model=DENSE, max_batch_tokens=8 * requests)
    return msgspec.structs.replace(
        made,
        seed=4,  # with it, the two lanes of a pair of ranks differ in their spine
        requests=tuple(prompt(i, 8) for i in range(requests)),
        workers=msgspec.structs.replace(made.workers, lanes_s3=2),
        simulation=SimulationOptions(exact=True, lanes=False),
    )


def run(made: Job) -> RunRecord:
    record = SimulatedRun(made, lambda progress: None).run()
    assert [check.name for check in record.fidelity.checks if not check.ok] == []
    return record


def deliveries(record: RunRecord, batch: str, layer: int) -> dict[int, list[FlowRow]]:
    """The S3 flows of a layer by their senders, each in the order of submission."""
    found: dict[int, list[FlowRow]] = defaultdict(list)
    for row in record.flows:
        if row.stage is Stage.P2D and (row.batch, row.layer) == (batch, layer):
            found[row.src].append(row)
    return {src: sorted(rows, key=lambda row: row.request or 0) for src, rows in found.items()}


def over(path: Path) -> str:
    return path[1].partition("->")[2]


def test_flows_beyond_the_lanes_take_the_paths_of_the_lanes_in_turn() -> None:
    """Six flows at once, two lanes: two take the lanes, four take spare lanes of lane 0, 1, 0, 1. The lanes
    of both senders differ in their spine, so every flow takes another spine than the one before it."""
    layer = deliveries(run(two_paths()), "p0.b1", 0)
    assert sorted(layer) == [0, 1]
    for rows in layer.values():
        assert len({row.submit_ns for row in rows}) == 1
        assert [row.lane_wait_ns for row in rows] == [0] * 6
        spines = [over(row.path) for row in rows]
        assert spines in (["spine1", "spine2"] * 3, ["spine2", "spine1"] * 3)


def test_the_turn_goes_on_from_one_layer_to_the_next() -> None:
    """Three flows per layer: the spare one takes the path of lane 0 in layer 0 and of lane 1 in layer 1."""
    record = run(two_paths(requests=4))
    first, second = (deliveries(record, "p0.b1", layer) for layer in (0, 1))
    for src in (0, 1):
        a, b, spare = (over(row.path) for row in first[src])
        assert (a != b, spare) == (True, a)
        assert [over(row.path) for row in second[src]] == [a, b, b]


def test_both_spines_carry_half_of_the_bytes() -> None:
    """A sender has 14 flows of 64 bytes: one and six in each of two layers. Four are on lane 0 and two on
    lane 1 of those that find a lane free, and four on a spare lane of each. Lane 0 of one sender has the
    spine of lane 1 of the other. So each spine carries 8 + 6 flows: 896 bytes."""
    record = run(two_paths())
    carried = {row.port: sum(row.sent_bytes) for row in record.links}  # the last sample of each port
    assert (carried["leaf1->spine1"], carried["leaf1->spine2"]) == (896, 896)
