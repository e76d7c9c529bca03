"""`mfs compare`: whether runs or sweeps differ, with intervals."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.endings import told_to_the_user
from experiments.cli.streams import stdout
from experiments.errors import UserError

if TYPE_CHECKING:
    from rich.table import Table

    from experiments.compare.replicates import ReplicateDifference


def compare(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Run directories, or sweep directories.")
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="POLICY", help="What to compare with; default: the first policy of the first DIR."
        ),
    ] = None,
    replicates: Annotated[
        bool,
        typer.Option(
            "--replicates", help="Each run directory is a replicate, such as a seed: intervals are over them."
        ),
    ] = False,
    anyway: Annotated[
        bool,
        typer.Option(
            "--anyway", help="Compare runs that are not faithful or did not have the same work, too."
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the differences as JSON.")] = False,
) -> None:
    """Say how policies differ on the same work, and whether the difference is more than chance."""
    with told_to_the_user():
        sweeps = [path for path in directories if (path / "sweep.json").is_file()]
        if sweeps and len(sweeps) < len(directories):
            raise UserError("compare runs with runs, or sweeps with sweeps; these are both")
        if sweeps or replicates:
            _over_replicates(directories, bool(sweeps), against, anyway, as_json)
        else:
            _over_requests(directories, against, anyway, as_json)


def _over_requests(paths: Sequence[Path], against: str | None, anyway: bool, as_json: bool) -> None:
    import msgspec

    from experiments.compare.runs import means, run_differences, words
    from experiments.compare.sides import objections, sides_of
    from experiments.results.readable_numbers import duration, share

    sides = sides_of(paths)
    labels = [side.label for side in sides]
    first = sides[labels.index(_chosen(against, labels))]
    sides = [first, *(side for side in sides if side is not first)]
    if len(sides) < 2:
        raise UserError(f"{paths[0]}: there is one run only, under {first.policy}; name another DIR")
    _refuse(objections(sides), anyway)
    found = run_differences(sides)
    if as_json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    table = _table(["run", "requests", "SLO met", "TTFT mean"])
    met, ttft = means(first)
    table.add_row(first.label, str(len(first.requests)), share(met), duration(ttft))
    for one in found:
        table.add_row(one.side, str(one.requests), *words(one))
    stdout().print(table)
    print(
        f"against {first.label}: mean difference, and 95 % bootstrap interval over the requests.\n"
        "Requests of a run share its batches, so this says nothing about other seeds: for these, use\n"
        "mfs sweep --over seed=1:8, or --replicates for runs that you have."
    )
    for one in found:
        if one.alone:
            print(f"{one.side}: {one.alone} requests have a first token under one of the two only")


def _over_replicates(
    paths: Sequence[Path], sweeps: bool, against: str | None, anyway: bool, as_json: bool
) -> None:
    import msgspec

    from experiments.compare.replicates import MEASURES, objections, of_runs, of_sweeps, replicate_differences

    known = of_sweeps(paths) if sweeps else of_runs(paths)
    labels = list(dict.fromkeys(one.side for one in known))
    if not labels:
        raise UserError("nothing to compare: no cell has finished")
    reference = _chosen(against, labels)
    if len(labels) < 2:
        raise UserError(f"nothing to compare: {reference} is the only policy")
    _refuse(objections(known, reference), anyway)
    found = replicate_differences(known, reference)
    if not found:
        raise UserError(f"no other policy has a replicate in common with {reference}")
    if as_json:
        print(json.dumps(msgspec.to_builtins(found), indent=2))
        return
    measures = list(dict.fromkeys(one.measure for one in found))
    keys = list(dict.fromkeys(key for one in found for key in one.values))
    table = _table([*(key.rpartition(".")[2] for key in keys), "policy", "n"], left=len(keys) + 1)
    for name in measures:
        table.add_column(MEASURES[name][0], justify="right")
    by_side: dict[tuple[str, ...], dict[str, ReplicateDifference]] = {}
    for one in found:
        place = (*(str(one.values.get(key, "-")) for key in keys), one.side)
        by_side.setdefault(place, {})[one.measure] = one
    for place, cells in by_side.items():
        count = max(cell.difference.count for cell in cells.values())
        told = ["\n".join(cells[name].words) if name in cells else "-" for name in measures]
        table.add_row(*place, str(count), *told)
    stdout().print(table)
    print(f"against {reference}, on the same work: mean difference, and 95 % interval over n replicates")


def _chosen(against: str | None, labels: Sequence[str]) -> str:
    if against is None:
        return labels[0]
    found = [label for label in labels if label == against or label.startswith(f"{against} (")]
    if not found:
        raise UserError(f"--against {against}: there is no such run; there are {', '.join(labels)}")
    return found[0]


def _refuse(objections: Sequence[str], anyway: bool) -> None:
    if objections and not anyway:
        more = f" (and {len(objections) - 1} more reasons)" if len(objections) > 1 else ""
        raise UserError(f"{objections[0]}{more}; --anyway compares them all the same")
    for objection in objections:
        print(f"note: {objection}")


def _table(headings: Sequence[str], *, left: int = 1) -> "Table":
    from rich.table import Table

    table = Table(box=None, padding=(0, 1, 0, 0))
    for i, heading in enumerate(headings):
        table.add_column(heading, justify="left" if i < left else "right", overflow="fold")
    return table
