"""Least laxity first: when a flow must start, and what happens to one that is too late."""

from keyed_world import DOWN, MB, MS, UP, early, first, s3, scheduler, with_batch

from controller.flow import Flow, Stage


def test_llf_orders_by_the_latest_start() -> None:
    """S3 of 4 MB due at 20 with 3 ms after it: 20 - 3 - 4 = 13. S1 of a request due at 30 with a tail
    of 5, 12 ms of compute after it and 1 MB to send: 30 - 5 - 12 - 1 = 12. A small S3 due at 17: 16."""
    core = with_batch("llf", {"r": 30}, tail_ms=5)
    given_orders = {
        flow.id: first(core, flow).order
        for flow in (
            s3("s3", size_mb=4, due_ms=20, after_ms=3),
            early("s1", Stage.KV_REUSE, request="r", after_ms=12),
            s3("small", due_ms=17),
        )
    }
    assert given_orders == {"s3": 13 * MS, "s1": 12 * MS, "small": 16 * MS}


def test_llf_counts_the_slowest_port_of_the_path() -> None:
    """1 MB takes 1 ms up and 2 ms down: due at 10, it must start by 8."""
    flow = Flow(id="f", stage=Stage.P2D, size_bytes=MB, load={UP: MB, DOWN: MB}, deadline_ns=10 * MS)
    assert first(scheduler("llf", exact=True), flow).order == 8 * MS


def test_a_collective_of_llf_goes_by_the_most_urgent_request_of_its_batch() -> None:
    """1 ms to send, due at 12 for one request and at 30 for the other: it must start by 11."""
    core = with_batch("llf", {"tight": 12, "loose": 30})
    assert first(core, early("s2", Stage.COLLECTIVE)).order == 11 * MS


def test_llf_keeps_to_laxity_when_it_is_negative() -> None:
    """1 ms to send, due at 3, submitted at 9: it had to start at 2, and goes before all flows in time."""
    core = scheduler("llf", exact=True)
    late = first(core, s3("late", due_ms=3), at_ms=9)
    assert late.order == 2 * MS
    assert late.reason == "laxity -7.0 ms"
    assert first(core, s3("in time", due_ms=30), at_ms=9).order > late.order


def test_llf_with_stall_holds_a_collective_due_at_once() -> None:
    """Submitted at 5, 1 ms to send: compute waits from 5 on, though the request has until 30."""
    core = with_batch("llf(stall=on)", {"r": 30})
    assert first(core, early("s2", Stage.COLLECTIVE), at_ms=5).order == 4 * MS


def test_llf_with_stall_holds_s1_due_when_compute_gets_to_its_layer() -> None:
    """For layer 2 of 4, with 8 ms from its start to the end of the batch: 4 ms a layer. The batch is at
    layer 0 and gets there at 8. The flow takes 1 ms to send."""
    core = with_batch("llf(stall=on)", {"r": 1000})
    flow = early("s1", Stage.KV_REUSE, request="r", after_ms=8, layer=2)
    assert first(core, flow).order == 7 * MS


def test_reverse_puts_last_what_compute_waits_for() -> None:
    """Both are due at 30 and take 1 ms. Compute waits for the collective at once. llf cannot tell them
    apart; reverse starts with the S3 flow."""
    flows = [early("s2", Stage.COLLECTIVE), s3("s3", due_ms=30)]
    llf, reverse = (with_batch(spec, {"r": 30}) for spec in ("llf", "reverse"))
    assert len({first(llf, flow).order for flow in flows}) == 1
    assert first(reverse, flows[1]).order < first(reverse, flows[0]).order
