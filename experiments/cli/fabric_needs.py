"""What fabrics need on this machine, as a table and in words: what is met or missing, and how to get it."""

from collections.abc import Iterable, Mapping, Sequence

from rich.console import RenderableType
from rich.text import Text

from experiments.fitted_table import FittedTable
from testbed.fabric import FabricUnavailable, Requirement


def works(requirements: Iterable[Requirement]) -> bool:
    """Return whether all necessary requirements are met."""
    return all(need.ok for need in requirements if need.needed)


def needs_table(fabrics: Mapping[str, Sequence[Requirement]]) -> RenderableType:
    """Return a table with one row per requirement of each fabric."""
    table = FittedTable(title="What the fabrics need on this machine", keys=2)
    for heading in ("fabric", "needs", "", "found"):
        table.add_column(heading, overflow="fold" if heading == "found" else "ellipsis")
    for name, requirements in fabrics.items():
        for i, need in enumerate(requirements):
            table.add_row(name if i == 0 else "", need.name, _state(need), Text(need.detail))
        table.add_section()
    return table


def needs_verdict(fabrics: Mapping[str, Sequence[Requirement]]) -> str:
    """Say for each fabric whether it can run here, with the commands that provide what is missing."""
    lines: list[str] = []
    for name, requirements in fabrics.items():
        lines.append(f"{name}: {'can run here' if works(requirements) else 'cannot run here'}")
        for need in requirements:
            if not need.ok and need.fix:
                lines.append(f"  for {need.name}: {need.fix}")
    return "\n".join(lines)


def unavailable_text(error: FabricUnavailable) -> str:
    """Say why a fabric cannot run here, with the commands that provide what is missing."""
    lines = [f"the fabric {error.fabric!r} cannot run here; missing:"]
    for need in error.missing:
        lines.append(f"  {need.name}: {need.detail}")
        if need.fix:
            lines.append(f"    to get it: {need.fix}")
    lines.append("`mfs doctor` lists everything the fabrics need. `--fabric sim` needs none of this.")
    return "\n".join(lines)


def _state(need: Requirement) -> Text:
    if need.ok:
        return Text("met", style="green")
    return Text("missing", style="red") if need.needed else Text("missing (optional)", style="yellow")
