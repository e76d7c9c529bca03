"""The table of `mfs bench sim --against`."""

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from experiments.bench.against import LeftOut, ToolRun
from experiments.bench.flow_sets import SETS

MIB = 1024**2
WIDTH = 150
"""Width of the table on a terminal, in characters."""

COLUMNS = (
    "flow set",
    "tool",
    "active",
    "wall",
    "CPU",
    "flows/s",
    "events/s",
    "ours is",
    "peak",
    "shared anew",
    "median",
    "p99",
    "largest",
)


def render(told: Sequence[ToolRun | LeftOut]) -> RenderableType:
    """A row for each flow set and tool, then what was left out, the versions, and what the flow sets are."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in COLUMNS:
        table.add_column(column, justify="left" if column in ("flow set", "tool") else "right")
    runs = [one for one in told if isinstance(one, ToolRun)]
    for one in runs:
        apart = one.difference
        table.add_row(
            one.case,
            one.tool,
            f"{one.active:,.0f}",
            f"{one.wall_s:.3g} s",
            f"{one.cpu_s:.3g} s",
            f"{one.flows_per_s:,.0f}",
            f"{one.events_per_s:,.0f}",
            "" if apart is None else f"{one.our_speed:.2g}x",
            f"{one.peak_bytes / MIB:,.0f} MiB",
            "" if one.shared_anew is None else f"{one.shared_anew:,.1f}",
            *(
                ("", "", "")
                if apart is None
                else (f"{value:.1e}" for value in (apart.median, apart.p99, apart.largest))
            ),
        )
    lines = [f"{one.case}: {one.tool} left out: {one.why}" for one in told if isinstance(one, LeftOut)]
    lines += [f"{tool}: {version}" for tool, version in {one.tool: one.version for one in runs}.items()]
    about = {case.name: case.about for case in SETS}
    lines += [f"{name}: {about.get(name, '')}" for name in dict.fromkeys(one.case for one in told)]
    return Group(table, Text("\n".join(lines)))
