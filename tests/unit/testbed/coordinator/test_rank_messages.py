"""What the coordinator makes of what arrives from ranks."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from serving_world import job, placed

from testbed.coordinator.ranks import Ranks
from testbed.fabric import RunFailed
from workers.protocol import BatchDone, RankTrouble, encode


class Living(Ranks):
    """Ranks whose processes live."""

    def check_processes(self) -> None:
        pass


def heard(frame: bytes, sender: str = "") -> Callable[[], object]:
    """The ranks of a job, after this has arrived."""
    hub = SimpleNamespace(socket=SimpleNamespace(poll=lambda _: 1), receive=lambda: frame, sender=sender)
    ranks = Living(job(*placed()), hub)  # type: ignore[arg-type]
    return lambda: ranks.receive(0.1)


def test_a_report_is_returned() -> None:
    done = BatchDone(batch="b", rank=0, start_ns=1, end_ns=2)
    assert heard(encode(done))() == done


def test_trouble_ends_the_run_with_the_name_of_the_rank() -> None:
    with pytest.raises(RunFailed, match="rank 2: it broke"):
        heard(encode(RankTrouble(rank=2, message="it broke")))()


@pytest.mark.parametrize(
    "frame", [b"garbage", b"", encode(BatchDone(batch="b", rank=0, start_ns=1, end_ns=2))[:9]]
)
def test_what_cannot_be_read_ends_the_run_in_a_line(frame: bytes) -> None:
    with pytest.raises(RunFailed, match="a rank has sent a message that cannot be read"):
        heard(frame)()


def test_who_has_sent_what_cannot_be_read_is_named_if_it_is_known() -> None:
    with pytest.raises(RunFailed, match="rank 3 has sent a message that cannot be read"):
        heard(b"garbage", sender="rank 3")()
