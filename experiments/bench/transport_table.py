"""The table of `mfs bench transport`."""

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.bench.transport_ways import (
    KIB,
    LARGE_BYTES,
    LARGE_GOAL,
    MIB,
    SMALL_BYTES,
    SMALL_GOAL_US,
    Measured,
    Way,
)
from experiments.results.readable_numbers import NOTHING, duration

COLUMNS: Final = 84
"""Width of the table on a terminal, in characters."""


def render(measured: Sequence[Measured]) -> Group:
    """Return the table for a terminal, and whether the goals are met."""
    table = Table(
        title=Text("Time from send to arrival, one message at a time"),
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    table.add_column("size", justify="right")
    table.add_column("way")
    for heading in ("turns", "p50", "p99", "MB/s", "of bare", "more"):
        table.add_column(heading, justify="right")
    for one in measured:
        for way in Way:
            bare = way is Way.BARE
            table.add_row(
                size(one.size_bytes) if bare else "",
                way.value,
                str(one.turns) if bare else "",
                duration(one.percentile_us(way, 50) / 1e6),
                duration(one.percentile_us(way, 99) / 1e6),
                f"{one.bytes_per_s(way) / 1e6:.1f}",
                NOTHING if bare else f"{one.of_bare(way):.1%}",
                NOTHING if bare else f"{one.more_us(way):+.0f} µs",
            )
    parts: list[RenderableType] = [table, *(Text(line) for line in goal_lines(measured))]
    return Group(*parts)


def goal_lines(measured: Sequence[Measured]) -> list[str]:
    """Say where each goal is met and where it is missed, for the goals that messages of these sizes have."""
    lines = []
    for goal, there in (
        (
            f"from {size(LARGE_BYTES)}, at least {LARGE_GOAL:.0%} of bare",
            [one for one in measured if one.size_bytes >= LARGE_BYTES],
        ),
        (
            f"below {size(SMALL_BYTES)}, at most {SMALL_GOAL_US:.0f} µs more",
            [one for one in measured if one.size_bytes < SMALL_BYTES],
        ),
    ):
        if not there:
            continue
        lines.append(f"goal {goal}")
        for way in (Way.LANE, Way.PERMITTED):
            met = [size(one.size_bytes) for one in there if one.meets_goal(way)]
            missed = [size(one.size_bytes) for one in there if not one.meets_goal(way)]
            told = f"met with {', '.join(met) or 'none'}; missed with {', '.join(missed) or 'none'}"
            lines.append(f"  {way.value}: {told}")
    return lines


def size(size_bytes: int) -> str:
    """As in "64 KiB"."""
    if size_bytes % MIB == 0:
        return f"{size_bytes // MIB} MiB"
    return f"{size_bytes / KIB:g} KiB"
