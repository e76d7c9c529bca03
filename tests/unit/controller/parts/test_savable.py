"""Which S3 is given up, on ports that carry 1 MB in a millisecond (8 Gb/s), worked out by hand."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from controller.flow import Batch, Flow, PortId, Stage
from controller.parts.savable import Handoff, sort_out
from controller.ports import PortLoads
from controller.view import ActiveBatch, ActiveFlow

X, Y = "h1->s1", "s1->h2"
MS = 1_000_000
MB = 1_000_000


class Ports:
    """Handoffs of one flow each, by name."""

    def __init__(self) -> None:
        self.loads = PortLoads({X: 8_000_000_000, Y: 8_000_000_000}, rho_window_ns=500 * MS)
        self.handoffs: dict[str, Handoff] = {}

    def s3(
        self,
        name: str,
        size_mb: float,
        due_ms: float,
        *ports: PortId,
        after_ms: float = 0,
        batch: ActiveBatch | None = None,
    ) -> Flow:
        size, deadline_ns = round(size_mb * MB), round(due_ms * MS)
        flow = Flow(
            id=name,
            stage=Stage.P2D,
            size_bytes=size,
            load=dict.fromkeys(ports or (X,), size),
            deadline_ns=deadline_ns,
            downstream_ns=round(after_ms * MS),
        )
        self.loads.submitted(flow)
        handoff = self.handoffs[name] = Handoff(deadline_ns)
        handoff.add(ActiveFlow(flow, 0, size, batch))
        return flow

    def lost(self, now_ms: float = 0, *, rho: float = 0.0, give_up: bool = True) -> set[str]:
        sort_out(round(now_ms * MS), self.handoffs.values(), self.loads, rho=rho, give_up=give_up)
        return {name for name, handoff in self.handoffs.items() if handoff.lost}


def test_all_are_kept_if_all_can_be_in_time() -> None:
    """By deadline: 2 MB until 2 of 4 ms, 3 MB more until 5 of 5. They need 2/4 and 5/5 of the port."""
    ports = Ports()
    ports.s3("late", 3, 5)
    ports.s3("soon", 2, 4)
    assert ports.lost() == set()
    assert ports.handoffs["soon"].pressure == 0.5
    assert ports.handoffs["late"].pressure == 1
    assert ports.handoffs["late"].words == f"1 of {X} until it is due (5 MB due by then)"


def test_the_largest_is_given_up_when_one_would_be_late() -> None:
    """By deadline, `a` ends at 4 and `b` at 7 of 6 ms. Without `a`, `b` ends at 3 and `c` at 5 of 7 ms."""
    ports = Ports()
    ports.s3("a", 4, 5)
    ports.s3("b", 3, 6)
    ports.s3("c", 2, 7)
    assert ports.lost() == {"a"}
    assert ports.handoffs["a"].words == f"{X} would be 1.0 ms late, and this has most to send there"
    assert ports.handoffs["c"].pressure == 5 / 7


def test_of_equal_requests_as_many_are_kept_as_can_be_in_time() -> None:
    ports = Ports()
    for number in range(4):
        ports.s3(str(number), 2, 5)
    assert len(ports.lost()) == 2


def test_one_that_cannot_be_in_time_alone_takes_nothing_from_others() -> None:
    """6 MB in 5 ms. The other two fit exactly."""
    ports = Ports()
    ports.s3("much", 6, 5)
    ports.s3("one", 2, 5)
    ports.s3("two", 3, 5)
    assert ports.lost() == {"much"}
    assert ports.handoffs["much"].words == f"6 MB take 6.0 ms on {X}, 5.0 ms are left"


def test_s1_and_s2_leave_less_of_a_port() -> None:
    """3 MB take 3 ms of an idle port, and 6 ms of half of it."""
    ports = Ports()
    ports.s3("a", 3, 5)
    assert ports.lost() == set()
    assert ports.lost(rho=0.5) == {"a"}


def test_what_is_given_up_on_one_port_leaves_its_other_ports_to_others() -> None:
    """`both` sends 3 MB through X and Y. With 3 MB more, X would end at 6 of 5.5 ms, and so would Y."""
    ports = Ports()
    ports.s3("both", 3, 5, X, Y)
    ports.s3("x", 3, 5.5, X)
    ports.s3("y", 3, 5.5, Y)
    assert ports.lost() == {"both"}


def test_aside_is_how_much_less_the_ports_of_s1_and_s2_have_to_do() -> None:
    """S2 uses X. `a` sends 1 MB over X, after 3 MB of `b` that go over Y alone: 1 ms of X, 4 ms of Y."""
    ports = Ports()
    s2 = Flow(id="s2", stage=Stage.COLLECTIVE, size_bytes=50 * MB, load={X: 50 * MB})
    ports.loads.submitted(s2)
    ports.s3("b", 3, 9, Y)
    ports.s3("a", 1, 10, X, Y)
    assert ports.lost() == set()
    assert ports.handoffs["b"].aside == 0
    assert ports.handoffs["a"].aside == 0.25
    ports.s3("c", 3, 11, X)
    ports.lost()
    assert ports.handoffs["c"].aside == 1


def test_what_must_follow_the_last_byte_takes_its_time_off_the_deadline() -> None:
    ports = Ports()
    ports.s3("a", 4, 5, after_ms=2)
    assert ports.lost() == {"a"}
    assert ports.lost(now_ms=4) == {"a"}
    assert ports.handoffs["a"].words == "1.0 ms too late for what must follow it"


def test_a_request_whose_batch_computes_until_after_its_deadline_is_given_up() -> None:
    """The batch computes layer 0 of 4 of 2 ms each: three to come, 6 ms. At layer 1, these are 4 ms."""
    batch = ActiveBatch(Batch(id="b", layers=4, requests=(), compute_ns=8 * MS))
    ports = Ports()
    ports.s3("a", 1, 5, batch=batch)
    assert ports.lost() == {"a"}
    assert ports.handoffs["a"].words == "its batch computes 6.0 ms more, 5.0 ms are left"
    batch.layer = 1
    assert ports.lost() == set()


def test_bytes_that_have_moved_no_longer_count() -> None:
    ports = Ports()
    flow = ports.s3("a", 6, 5)
    ports.loads.moved(0, flow, before_bytes=6 * MB, after_bytes=4 * MB)
    assert ports.lost() == set()
    assert ports.handoffs["a"].pressure == 0.8


def test_a_handoff_without_ports_is_in_time() -> None:
    ports = Ports()
    ports.handoffs["local"] = Handoff(5 * MS)
    assert ports.lost() == set()


def test_flows_without_bytes_press_on_no_port() -> None:
    """A request can have one beside others. When all are through, nothing is left of its load."""
    ports = Ports()
    some = ports.s3("a", 2, 4)
    none = ports.s3("b", 0, 4)
    both = ports.handoffs["a"]
    both.add(ActiveFlow(none, 0, 0, None))
    assert ports.lost() == set()
    assert ports.handoffs["b"].pressure == 0
    for flow in (some, none):
        both.remove(ActiveFlow(flow, 0, 0, None))
    assert both.load == {}


def test_without_giving_up_only_what_is_past_its_deadline_is_lost() -> None:
    ports = Ports()
    ports.s3("a", 4, 5)
    ports.s3("b", 3, 6)
    assert ports.lost(give_up=False) == set()
    assert ports.lost(now_ms=5, give_up=False) == {"a"}
    assert ports.handoffs["a"].words == "its deadline passed 0.0 ms ago"


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 15)), min_size=1, max_size=6))
def test_on_one_port_no_other_choice_leaves_fewer_late(jobs: list[tuple[int, int]]) -> None:
    """Moore's theorem, against all subsets: a set can be in time if it is so by deadline."""

    def in_time(chosen: tuple[tuple[int, int], ...]) -> bool:
        ends = itertools.accumulate(size for _, size in sorted((due, size) for size, due in chosen))
        return all(end <= due for end, due in zip(ends, sorted(due for _, due in chosen), strict=True))

    ports = Ports()
    for number, (size, due) in enumerate(jobs):
        ports.s3(str(number), size, due)
    lost = ports.lost()
    kept = tuple(job for number, job in enumerate(jobs) if str(number) not in lost)
    subsets = (each for count in range(len(jobs) + 1) for each in itertools.combinations(jobs, count))
    assert in_time(kept)
    assert len(kept) == max(len(each) for each in subsets if in_time(each))
