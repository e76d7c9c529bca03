"""Algorithm 1 of MFS v1: which requests overload control prunes.

All ports but one carry 8 Gb/s, which is 1 MB in 1 ms; `FAST` carries 80 Gb/s.
"""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.flow import PortId
from controller.overload import BatchLoad, RequestControl, RequestLoad, overloading_requests
from controller.urgency import loose_deadline, red, red_split

UP, OTHER, FAST = "h1->s1", "h2->s1", "s1->h3"
PORTS = {UP: 8 * 10**9, OTHER: 8 * 10**9, FAST: 80 * 10**9}
MB = 1_000_000
MS = 1_000_000


def needs(name: str, due_ms: int, port: PortId = UP, mb: int = 0) -> RequestLoad:
    return RequestLoad(id=name, due_ns=due_ms * MS, load={port: mb * MB})


def left(name: str, *requests: RequestLoad, compute_ms: int = 0, s2_mb: int = 0) -> BatchLoad:
    return BatchLoad(
        id=name,
        red_ns=red([request.due_ns for request in requests]),
        compute_left_ns=compute_ms * MS,
        requests=requests,
        load={UP: s2_mb * MB},
    )


def prune(*batches: BatchLoad, budget: int = 99, now_ms: int = 0) -> dict[str, str]:
    return overloading_requests(now_ms * MS, batches, bps=PORTS, budget=budget)


def test_the_heaviest_request_of_an_earlier_batch_makes_room_for_a_later_one() -> None:
    """b1: 10 + 30 = 40 ms, due at 50. b2: 40 + 25 = 65, due at 60: 5 ms late. Without the 30 MB of
    `b` it takes 35 ms, and no other request has to go."""
    b1 = left("b1", needs("a", 50, mb=10), needs("b", 50, mb=30))
    b2 = left("b2", needs("c", 60, mb=25))
    assert prune(b2, b1) == {
        "b": "pruned: batch b2 would end 5 ms after its loose deadline; request b loads h1->s1 most, 30 MB"
    }


@pytest.mark.parametrize(("budget", "pruned"), [(0, ""), (1, "c"), (2, "cb"), (3, "cba")])
def test_a_batch_that_cannot_be_saved_prunes_as_long_as_the_budget_lasts(budget: int, pruned: str) -> None:
    """Three times 20 MB, due at 10 ms: 60, 40, 20 ms. Loads are equal, so the last request is pruned."""
    batch = left("b", *(needs(name, 10, mb=20) for name in "abc"))
    assert "".join(prune(batch, budget=budget)) == pruned


def test_the_loose_deadline_decides_not_the_tight_one() -> None:
    """10 + 15 = 25 ms. Due at 10 and 30: the tight one is missed, the loose one is not."""
    assert prune(left("b", needs("tight", 10, mb=10), needs("loose", 30, mb=15))) == {}


def test_a_missed_loose_deadline_is_mended_until_what_is_left_is_in_time() -> None:
    """10 + 15 = 25 ms, due at 10 and 24: 1 ms late. Without the 15 MB: 10 ms, due at 10."""
    assert list(prune(left("b", needs("tight", 10, mb=10), needs("loose", 24, mb=15)))) == ["loose"]


def test_the_busiest_port_decides_not_the_sum_of_bytes() -> None:
    """10 MB on a port of 1 MB/ms, 50 MB on one of 10 MB/ms: 10 ms and 5 ms. Due at 12: in time.
    Due at 8: the 10 MB have to go, and 5 ms are left."""
    small, large = needs("small", 12, UP, 10), needs("large", 12, FAST, 50)
    assert prune(left("b", small, large)) == {}
    assert list(prune(left("b", replace(small, due_ns=8 * MS), replace(large, due_ns=8 * MS)))) == ["small"]


def test_a_request_on_another_port_is_left_alone() -> None:
    """`UP` has 20 MB of b1 and 90 + 90 MB of b2, with 20 ms of compute: 220 ms, due at 210. The heaviest
    request has its 100 MB on another port."""
    b1 = left("b1", needs("elsewhere", 200, OTHER, 100), needs("near", 200, UP, 20))
    b2 = left("b2", needs("c", 210, UP, 90), needs("d", 210, UP, 90), compute_ms=20)
    assert list(prune(b1, b2)) == ["d"]


def test_nobody_is_pruned_for_what_collectives_alone_have_filled() -> None:
    """100 MB of S2 on `UP`, due at 50; the only request is on another port."""
    assert prune(left("b", needs("a", 50, OTHER, 10), s2_mb=100)) == {}


def test_what_was_pruned_for_one_batch_is_no_load_for_the_next() -> None:
    """b1: 30 + 20 = 50 ms, due at 25: a goes, then b (20 ms) stays. b2: 20 + 10 = 30, due at 30."""
    b1 = left("b1", needs("a", 25, mb=30), needs("b", 25, mb=20))
    assert list(prune(b1, left("b2", needs("c", 30, mb=10)))) == ["a"]


loads = st.dictionaries(st.sampled_from(list(PORTS)), st.integers(0, 50 * MB), max_size=3)


@st.composite
def batches_left(draw: st.DrawFn) -> list[BatchLoad]:
    made = []
    for i, dues in enumerate(
        draw(st.lists(st.lists(st.integers(0, 200), min_size=1, max_size=4), max_size=5))
    ):
        requests = tuple(
            RequestLoad(id=f"b{i}.{j}", due_ns=due * MS, load=draw(loads)) for j, due in enumerate(dues)
        )
        made.append(
            BatchLoad(
                id=f"b{i}",
                red_ns=red([request.due_ns for request in requests]),
                compute_left_ns=draw(st.integers(0, 50)) * MS,
                requests=requests,
                load=draw(loads),
            )
        )
    return made


def all_in_time(batches: list[BatchLoad]) -> bool:
    """The estimate, computed from its definition, with no request pruned."""
    total = dict.fromkeys(PORTS, 0)
    for batch in sorted(batches, key=lambda batch: batch.red_ns):
        own = {port: sum(part.load.get(port, 0) for part in (batch, *batch.requests)) for port in PORTS}
        total = {port: total[port] + own[port] for port in PORTS}
        drains_ns = [-(-total[port] * 8 * 10**9 // PORTS[port]) for port in PORTS if own[port]]
        deadline_ns = loose_deadline([request.due_ns for request in batch.requests])
        if batch.compute_left_ns + max(drains_ns, default=0) > deadline_ns:
            return False
    return True


@settings(max_examples=200, deadline=None)
@given(batches_left(), st.integers(0, 6))
def test_the_budget_is_kept_and_nobody_is_pruned_while_all_are_in_time(
    batches: list[BatchLoad], budget: int
) -> None:
    pruned = overloading_requests(0, batches, bps=PORTS, budget=budget)
    assert len(pruned) <= budget
    assert set(pruned) <= {request.id for batch in batches for request in batch.requests}
    if all_in_time(batches):
        assert pruned == {}


def test_the_loose_group_begins_behind_the_widest_gap() -> None:
    assert red_split([40, 10, 12]) == ((10, 12), (40,))
    assert [loose_deadline(dues) for dues in ([10, 12, 40], [10, 30, 40], [7, 7], [7])] == [40, 30, 7, 7]


def test_the_budget_is_a_share_rounded_down() -> None:
    """0.3 of 3 is 0.9; 0.29 of 100 is 29, although 0.29 * 100 is a little less."""
    assert [RequestControl().most_pruned(n) for n in (0, 3, 4, 10)] == [0, 0, 1, 3]
    assert RequestControl(drop_budget=0.29).most_pruned(100) == 29
