"""A small serving cluster from end to end: requests, tensors over the fabric, first tokens."""

import emulated_world as world
import pytest

from controller.flow import SERVING_STAGES, Level, Stage
from testbed.record import FlowRow, RunRecord
from testbed.topology import leaf_spine, star

NIC_BPS = 30_000_000

JOBS = {
    "star": world.serving_job(star(servers=5, nic_bps=NIC_BPS)),
    "leaf-spine": world.serving_job(
        leaf_spine(leaves=2, spines=2, hosts_per_leaf=3, nic_bps=NIC_BPS, oversubscription=1.5)
    ),
    "two ranks per server": world.serving_job(
        star(servers=3, nic_bps=NIC_BPS), policy="fair", ranks_per_server=2
    ),
    "dense, with a decode worker of two ranks": world.serving_job(
        star(servers=6, nic_bps=NIC_BPS), policy="stage", model=world.DENSE, decode_tp=2
    ),
}


@pytest.fixture(scope="module")
def records() -> dict[str, RunRecord]:
    """The runs made so far, by cluster."""
    return {}


@pytest.fixture(params=JOBS)
def cluster(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def record(cluster: str, records: dict[str, RunRecord]) -> RunRecord:
    return _record(cluster, records)


def _record(cluster: str, records: dict[str, RunRecord]) -> RunRecord:
    if cluster not in records:
        records[cluster] = world.run(JOBS[cluster])
    return records[cluster]


def test_every_request_gets_its_first_token_exactly_once(cluster: str, record: RunRecord) -> None:
    assert sorted(r.request for r in record.requests) == [r.id for r in JOBS[cluster].requests]
    for row in record.requests:
        assert row.status == "completed"
        assert row.new_tokens + row.local_tokens + row.remote_tokens == row.prompt_tokens
        assert row.arrival_ns <= row.start_ns < row.prefill_end_ns < row.first_token_ns
        assert row.ttft_ns == row.first_token_ns - row.arrival_ns


def test_all_three_stages_are_there_and_every_payload_was_checked(record: RunRecord) -> None:
    assert {flow.stage for flow in record.flows} == set(SERVING_STAGES)
    assert all(flow.verified for flow in record.flows)
    assert len({flow.id for flow in record.flows}) == len(record.flows)


def test_a_prefix_that_the_other_unit_computed_is_fetched(record: RunRecord) -> None:
    for request in (2, 3):  # the second wave asks each unit for the other's prompt
        row = next(r for r in record.requests if r.request == request)
        fetches = [f for f in record.flows if f.request == request and f.stage is Stage.KV_REUSE]
        assert row.remote_tokens == 96
        assert sorted({f.layer for f in fetches}) == [0, 1, 2]
        assert sum(f.size_bytes for f in fetches) == 96 * 1024 * 3  # tokens x KV bytes x layers


def test_no_flow_is_sent_before_its_level_is_in_force(record: RunRecord) -> None:
    decided = {}
    for decision in record.decisions:
        decided.setdefault(decision.flow, decision)
    for flow in record.flows:
        first = decided[flow.id]
        assert first.level_from is None
        assert first.level_to is flow.level_first
        assert flow.submit_ns <= first.time_ns <= flow.permit_ns <= flow.finish_ns


def test_levels_stay_between_p1_and_scavenger_and_only_rise(record: RunRecord) -> None:
    level: dict[str, Level] = {}
    for decision in record.decisions:
        assert Level.P1 <= decision.level_to <= Level.SCAVENGER
        assert decision.level_from == level.get(decision.flow)
        assert decision.level_from is None or decision.level_to < decision.level_from
        level[decision.flow] = decision.level_to
    assert level == {flow.id: flow.level_last for flow in record.flows}


def test_a_first_token_waits_for_all_kv_of_its_request(record: RunRecord) -> None:
    for row in record.requests:
        kv = [f for f in record.flows if f.request == row.request and f.stage is Stage.P2D]
        assert sum(f.size_bytes for f in kv) == row.prompt_tokens * 1024 * 3
        assert max(f.finish_ns for f in kv) == row.p2d_end_ns <= row.first_token_ns


def test_compute_of_a_layer_waits_for_its_fetches(record: RunRecord) -> None:
    for flow in record.flows:
        if flow.stage is Stage.KV_REUSE:
            computes = [
                s.start_ns
                for s in record.spans
                if (s.rank, s.batch, s.layer, s.kind) == (flow.dst, flow.batch, flow.layer, "compute")
            ]
            assert flow.finish_ns <= min(computes)


def test_the_bytes_cross_the_queues_of_every_port_on_their_path(record: RunRecord) -> None:
    last = {sample.port: sample for sample in record.links}
    for port, sample in last.items():
        payload = sum(
            f.size_bytes for f in record.flows if f.stage is not Stage.COLLECTIVE and port in f.path
        )
        assert sum(sample.sent_bytes) >= payload
    assert any(port in flow.path for flow in record.flows for port in last)


def test_nothing_is_dropped(record: RunRecord) -> None:
    assert all(sum(sample.drops) == 0 for sample in record.links)


# --- what only one cluster shows ----------------------------------------------------------------


def test_mfs_promotes(records: dict[str, RunRecord]) -> None:
    """Two units fetch three layers each. Layers 1 and 2 begin below P2 and rise as compute comes closer."""
    record = _record("star", records)
    fetches = [f for f in record.flows if f.stage is Stage.KV_REUSE]
    assert all(f.level_first > Level.P2 for f in fetches if f.layer in (1, 2))
    assert sum(f.promotions for f in fetches) > 0


def test_both_spines_carry_traffic(records: dict[str, RunRecord]) -> None:
    record = _record("leaf-spine", records)
    last = {sample.port: sample for sample in record.links}
    for spine in ("spine1", "spine2"):
        crossing = [f for f in record.flows if f"leaf1->{spine}" in f.path]
        assert crossing
        assert sum(last[f"leaf1->{spine}"].sent_bytes) >= sum(_one_way(f) for f in crossing)


def test_every_flow_takes_one_shortest_path(records: dict[str, RunRecord]) -> None:
    topology = JOBS["leaf-spine"].topology
    for flow in _record("leaf-spine", records).flows:
        if flow.dst_server is not None:
            assert flow.path in topology.paths(flow.src_server, flow.dst_server)


def test_ranks_of_one_server_do_not_use_the_fabric_between_them(records: dict[str, RunRecord]) -> None:
    local = [f for f in _record("two ranks per server", records).flows if f.src_server == f.dst_server]
    assert local
    assert all(f.path == () for f in local)


def test_fair_sharing_never_changes_a_level(records: dict[str, RunRecord]) -> None:
    record = _record("two ranks per server", records)
    assert {d.level_to for d in record.decisions} == {Level.P3}
    assert all(d.level_from is None for d in record.decisions)


def test_a_dense_model_reduces_over_its_tensor_parallel_group(records: dict[str, RunRecord]) -> None:
    record = _record("dense, with a decode worker of two ranks", records)
    collectives = [f for f in record.flows if f.stage is Stage.COLLECTIVE]
    assert {f.coflow.split(".", 4)[-1] for f in collectives} == {"p0.tp0", "p1.tp0"}
    # A ring of two: each rank sends 2 (p - 1) / p = 1 vector of 101 tokens x 256 x 2 bytes per reduction.
    first = [f for f in collectives if f.batch == "p0.b0"]
    assert {f.size_bytes for f in first} == {101 * 512}
    assert len(first) == 2 * 2 * 3  # ranks, reductions per layer, layers


def _one_way(flow: FlowRow) -> int:
    return 0 if flow.stage is Stage.COLLECTIVE else flow.size_bytes
