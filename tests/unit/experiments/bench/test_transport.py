"""`mfs bench transport`: what its numbers are, when its goals are met, and that all ways carry messages."""

import io
import json

import pytest
import torch
from rich.console import Console

from experiments.bench.transport import measure
from experiments.bench.transport_table import COLUMNS, goal_lines, render
from experiments.bench.transport_ways import KIB, MIB, Measured, Way, as_json
from experiments.errors import UserError
from workers.options import Device

MS = 1_000_000
US = 1000


def measured(size_bytes: int, bare: list[int], lane: list[int], permitted: list[int]) -> Measured:
    """Times in ns, one for each turn."""
    times = {Way.BARE: bare, Way.LANE: lane, Way.PERMITTED: permitted}
    return Measured(size_bytes=size_bytes, times_ns=times)


LARGE = measured(4 * MIB, [2 * MS, 4 * MS, 3 * MS], [2 * MS, 5 * MS, 4 * MS], [4 * MS, 4 * MS, 4 * MS])


def test_throughput_is_of_the_time_that_messages_are_on_their_way() -> None:
    """12 MiB in 9 ms."""
    assert LARGE.bytes_per_s(Way.BARE) == pytest.approx(12 * MIB / 0.009)
    assert LARGE.turns == 3
    assert LARGE.percentile_us(Way.LANE, 50) == 4000


def test_a_way_is_compared_with_the_bare_message_of_the_same_turn() -> None:
    """Of bare: 1, 0.8 and 0.75 for a lane, and 0.5, 1 and 0.75 with permits; medians 0.8 and 0.75."""
    assert LARGE.of_bare(Way.LANE) == 0.8
    assert LARGE.of_bare(Way.PERMITTED) == 0.75
    assert LARGE.more_us(Way.LANE) == 1000
    assert LARGE.of_bare(Way.BARE) == 1


@pytest.mark.parametrize(
    ("size_bytes", "bare_us", "own_us", "met"),
    [
        (4 * MIB, 980, 1000, True),
        (4 * MIB, 979, 1000, False),
        (64 * KIB - 1, 100, 200, True),
        (KIB, 100, 201, False),
        (64 * KIB, 100, 900, None),
    ],
)
def test_goals_are_a_share_of_large_messages_and_a_time_of_small_ones(
    size_bytes: int, bare_us: int, own_us: int, met: bool | None
) -> None:
    one = measured(size_bytes, [bare_us * US], [own_us * US], [own_us * US])
    assert one.meets_goal(Way.LANE) is met


def test_the_lines_below_the_table_say_which_sizes_meet_the_goals() -> None:
    small = measured(KIB, [100 * US], [150 * US], [300 * US])
    assert goal_lines([small, LARGE]) == [
        "goal from 4 MiB, at least 98% of bare",
        "  lane: met with none; missed with 4 MiB",
        "  permitted: met with none; missed with 4 MiB",
        "goal below 64 KiB, at most 100 µs more",
        "  lane: met with 1 KiB; missed with none",
        "  permitted: met with none; missed with 1 KiB",
    ]
    assert goal_lines([measured(MIB, [MS], [MS], [MS])]) == []


def test_the_table_has_a_row_for_each_way() -> None:
    console = Console(width=COLUMNS, file=io.StringIO())
    console.print(render([LARGE]))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[2].split() == ["4", "MiB", "bare", "3", "3.00", "ms", "3.98", "ms", "1398.1", "-", "-"]
    assert lines[3].split()[-3:] == ["80.0%", "+1000", "µs"]


def test_json_has_everything() -> None:
    found = json.loads(json.dumps(as_json([LARGE], complete=True)))
    assert found["complete"]
    [size] = found["sizes"]
    assert size["ways"]["lane"]["meets_goal"] is False
    assert size["ways"]["bare"]["meets_goal"] is None
    assert size["ways"]["permitted"]["of_bare"] == 0.75


def test_messages_go_all_ways_in_turns_and_their_bytes_are_checked() -> None:
    """300 KiB are two pieces of a lane. With wrong bytes, the process that receives would die."""
    started: list[int] = []
    found = list(
        measure(
            [1, 300],
            seconds=0.01,
            chunk_kib=256,
            verify_share=1.0,
            device=Device.CPU,
            on_start=started.append,
        )
    )
    assert started == [1, 300]
    assert [one.size_bytes for one in found] == [KIB, 300 * KIB]
    for one in found:
        assert one.turns >= 10
        assert {len(times) for times in one.times_ns.values()} == {one.turns}
        assert min(min(times) for times in one.times_ns.values()) > 0


def test_nccl_is_refused_without_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    wanted = measure(
        [1], seconds=0.01, chunk_kib=256, verify_share=0.0, device=Device.CUDA, on_start=lambda _: None
    )
    with pytest.raises(UserError, match=r"^--device cuda: NCCL needs a GPU for each .* this machine has 1$"):
        next(wanted)
