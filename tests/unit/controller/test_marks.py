"""Levels as marks: which rank marks which connection with what, and when a level counts as in force."""

import pytest

from controller.dispatcher import Dispatcher, Enforce, Grant
from controller.flow import Level, Stage, Transfer
from controller.markers import Markers
from controller.marks import MarkBook, MarkChange
from controller.policies import make_policy
from controller.protocol import LaneUp, Mark, Marked, Submit, TcpConnection, decode_down
from controller.scheduler import Scheduler

PATHS = {"h1 h2": ("h1", "s1", "h2"), "h2 h1": ("h2", "s1", "h1")}
DSCPS = (56, 48, 40, 32, 24, 16, 8, 0)
LINK = TcpConnection(src_ip="10.0.0.1", dst_ip="10.0.0.2", src_port=40_000, dst_port=50_000)


def book(*, enforced: bool = True) -> MarkBook:
    made = MarkBook(PATHS, enforced=enforced)
    assert made.add("lane#0", LINK, "h1", "h2", rank=3) == []
    return made


def test_a_connection_begins_at_control_and_changes_once_per_level() -> None:
    rules = book()
    assert rules.set_level(["lane#0"], Level.CONTROL) == []
    change = MarkChange(rank=3, connection=LINK, level=Level.P4)
    assert rules.set_level(["lane#0"], Level.P4) == [change]
    assert rules.set_level(["lane#0"], Level.P4) == []
    assert rules.path("lane#0") == ("h1", "s1", "h2")


def test_a_name_cannot_be_taken_twice() -> None:
    with pytest.raises(ValueError, match="'lane#0' is registered twice"):
        book().add("lane#0", LINK, "h1", "h2", rank=3)


def test_without_enforcement_nothing_is_marked() -> None:
    assert book(enforced=False).set_level(["lane#0"], Level.P4) == []


class Sent:
    """A hub that keeps what is sent."""

    def __init__(self) -> None:
        self.frames: list[tuple[str, object]] = []

    def send(self, name: str, frame: bytes) -> None:
        self.frames.append((name, decode_down(frame)))


def test_the_rank_that_sends_is_told_the_dscp_and_confirms_it() -> None:
    """P1 is the third most urgent of the eight levels: 40."""
    hub = Sent()
    markers = Markers(hub, DSCPS)  # type: ignore[arg-type]
    level = Level(2)
    markers.send([MarkChange(rank=3, connection=LINK, level=level)], ("lane", level))
    assert hub.frames == [("3", Mark(lane="lane", level=level, dscp=40, connections=(LINK,)))]
    assert markers.waiting
    assert markers.marked(Marked(lane="lane", level=level)) == [("lane", level)]
    assert not markers.waiting
    assert (markers.flow_mods, markers.barriers) == (1, 1)
    with pytest.raises(ValueError, match="unasked"):
        markers.marked(Marked(lane="lane", level=level))


def test_nobody_confirms_what_nobody_waits_for() -> None:
    hub = Sent()
    markers = Markers(hub, DSCPS)  # type: ignore[arg-type]
    markers.send([MarkChange(rank=3, connection=LINK, level=Level.P3)], None)
    [(_, mark)] = hub.frames
    assert isinstance(mark, Mark)
    assert mark.lane == ""
    assert not markers.waiting


def permits(*, enforced: bool) -> list[object]:
    """What a dispatcher does when rank 0 on h1 submits a flow to rank 1 on h2."""
    rules = MarkBook(PATHS, enforced=enforced)
    dispatcher = Dispatcher(Scheduler(make_policy("fair"), ports={"h1->s1": 1, "s1->h2": 1}), rules)
    dispatcher.lane_up(
        LaneUp(
            lane="S3.0-1.0",
            stage=Stage.P2D,
            src=0,
            dst=1,
            src_server="h1",
            dst_server="h2",
            connections=(LINK,),
        )
    )
    transfer = Transfer(id="f", stage=Stage.P2D, src=0, dst=1, size_bytes=1)
    actions = dispatcher.submit(0, Submit(transfer=transfer, sent_wall_ns=0))
    if enforced:
        [enforce] = actions
        assert isinstance(enforce, Enforce)
        assert [mod.rank for mod in enforce.mods] == [0]
        actions = dispatcher.confirmed(enforce.lane, enforce.level)
    return list(actions)


@pytest.mark.parametrize("enforced", [True, False])
def test_a_flow_gets_its_permit_once_its_packets_are_marked_or_at_once_without_marks(enforced: bool) -> None:
    [grant] = permits(enforced=enforced)
    assert isinstance(grant, Grant)
    assert (grant.rank, grant.permit.flow, grant.permit.level) == (0, "f", Level.P3)
