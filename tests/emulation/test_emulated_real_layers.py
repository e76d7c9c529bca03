"""Real layers over the fabric: first tokens, from the KV that arrived, are those of the whole model."""

import emulated_world as world
import msgspec
import pytest

from controller.flow import Stage
from testbed.job import Job
from testbed.models.shape import ModelShape
from testbed.record import RunRecord
from testbed.topology import star
from workers.options import ComputeMode

DENSE = msgspec.structs.replace(world.DENSE, hidden=128, head_dim=32, ffn=256)
MOE = msgspec.structs.replace(world.MOE, hidden=128, head_dim=32, ffn=128)


def job(model: ModelShape, decode_tp: int = 1) -> Job:
    plain = world.serving_job(star(servers=6, nic_bps=30_000_000), model=model, decode_tp=decode_tp)
    return msgspec.structs.replace(
        plain, workers=msgspec.structs.replace(plain.workers, compute=ComputeMode.MODEL)
    )


JOBS = {
    "mixture of experts": job(MOE),
    "dense, with a decode worker of two ranks": job(DENSE, decode_tp=2),
}


@pytest.fixture(scope="module", params=JOBS)
def record(request: pytest.FixtureRequest) -> RunRecord:
    return world.run(JOBS[request.param])


def test_first_tokens_are_those_of_the_whole_model(record: RunRecord) -> None:
    """KV of a token: 3 layers x 2 x 4 heads x 32 wide x 2 B = 1,536 B. All of it is compared."""
    for row in record.requests:
        assert row.kv_bytes == row.prompt_tokens * 1536
        assert row.token == row.expected_token or row.token_gap < 0.002  # a tie: rounding decides
        assert row.logit_error is not None
        assert row.logit_error < 0.02
        assert row.kv_error is not None
        assert row.kv_error < 0.05


def test_all_stages_carry_real_tensors_and_transfers_are_compared_with_what_was_sent(
    record: RunRecord,
) -> None:
    assert {flow.stage for flow in record.flows} == {Stage.KV_REUSE, Stage.COLLECTIVE, Stage.P2D}
    assert all(flow.verified is (None if flow.stage is Stage.COLLECTIVE else True) for flow in record.flows)


def test_a_run_whose_tokens_are_right_says_so_in_its_checks(record: RunRecord) -> None:
    checks = {check.name: check for check in record.fidelity.checks}
    assert checks["first tokens of the whole model"].value == 1.0
    assert checks["first tokens of the whole model"].ok
    assert checks["largest error of a logit"].ok
    assert checks["largest error of an element of KV"].ok
