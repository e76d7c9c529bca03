"""Hermod: which flow goes first, and the levels that this gives, worked out by hand."""

from keyed_world import MB, UP, first, order_of, s3, scheduler

from controller.flow import Batch, BatchRequest, Flow, Level, Stage
from controller.scheduler import Scheduler


def with_batches(*names: str, exact: bool) -> Scheduler:
    core = scheduler("hermod", exact=exact)
    for name in names:
        core.batch_started(0, Batch(id=name, layers=4, requests=(BatchRequest(id="r", deadline_ns=10**9),)))
    return core


def flow(batch: str, stage: Stage, layer: int | None) -> Flow:
    name = f"{batch} {stage.value} {layer}"
    return Flow(id=name, stage=stage, size_bytes=MB, load={UP: MB}, batch=batch, layer=layer)


def test_the_batch_counts_before_the_stage_and_the_stage_before_the_layer() -> None:
    core = with_batches("one", "two", exact=True)
    flows = [
        s3("of no batch"),
        flow("two", Stage.COLLECTIVE, 0),
        flow("one", Stage.P2D, 3),
        flow("one", Stage.P2D, 1),
        flow("one", Stage.KV_REUSE, 2),
        flow("two", Stage.KV_REUSE, 0),
        flow("one", Stage.COLLECTIVE, 3),
    ]
    assert order_of(core, flows) == [
        "one S2 3",
        "one S1 2",
        "one S3 1",
        "one S3 3",
        "two S2 0",
        "two S1 0",
        "of no batch",
    ]


def test_a_batch_climbs_when_the_one_before_it_has_departed() -> None:
    """Nothing is known of the first flow: P3. All bytes seen before the others are ahead of these: P6. When
    `one` departs, the keys of `two` count from `two` on. The values seen are 0, 2 and 4 stages, and that of
    "two S2 0" is now 0: half of one of three equal flows is ahead of it, a sixth, so P2."""
    core = with_batches("one", "two", exact=False)
    flows = [flow("one", Stage.COLLECTIVE, 0), flow("one", Stage.P2D, 0), flow("two", Stage.COLLECTIVE, 0)]
    assert [first(core, each).level for each in flows] == [Level.P3, Level.P6, Level.P6]
    core.completion(1, "one S2 0")
    assert core.layer_advanced(2, "one", 4) == []
    said = core.completion(3, "one S3 0")
    assert [(each.flow, each.level) for each in said] == [("two S2 0", Level.P2)]
    assert said[0].reason == "the oldest batch, S2, layer 0, 17% of recent traffic was ahead"


def test_flows_of_no_batch_are_on_the_lowest_level() -> None:
    core = with_batches("one", exact=False)
    assert first(core, s3("of no batch")).level is Level.P6
    assert first(core, flow("one", Stage.P2D, None)).reason == "the oldest batch, S3, layer 0, the first seen"
