"""Flows: what a transfer and its load become for the scheduler."""

import msgspec

from controller.flow import Flow, FlowFacts, Stage, Transfer

TRANSFER = Transfer(
    id="f",
    stage=Stage.KV_REUSE,
    size_bytes=7,
    batch="b",
    layer=3,
    coflow="c",
    deadline_ns=9,
    downstream_ns=5,
    src=0,
    dst=1,
    request=4,
)


def test_a_flow_has_all_that_is_known_of_its_transfer() -> None:
    """Each value differs from its default, so a field that is left out shows."""
    flow = Flow.of(TRANSFER, {"up": 7})
    for field in msgspec.structs.fields(FlowFacts):
        assert getattr(TRANSFER, field.name) != field.default
        assert getattr(flow, field.name) == getattr(TRANSFER, field.name)
    assert (flow.load, flow.request) == ({"up": 7}, "4")


def test_a_flow_without_a_coflow_of_its_own_is_of_the_one_of_its_batch_layer_and_stage() -> None:
    plain = msgspec.structs.replace(TRANSFER, coflow=None)
    twin = msgspec.structs.replace(plain, id="g", size_bytes=1)
    other = msgspec.structs.replace(plain, layer=4)
    assert Flow.of(plain, {}).coflow == Flow.of(twin, {}).coflow != Flow.of(other, {}).coflow
