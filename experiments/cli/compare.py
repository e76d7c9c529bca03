"""`mfs compare`: whether runs or sweeps differ, with intervals."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.endings import told_to_the_user
from experiments.cli.streams import stdout


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
        import msgspec

        from experiments.compare.comparison import compared
        from experiments.compare.table import render_comparison

        found = compared(directories, against=against, replicates=replicates, anyway=anyway)
        if as_json:
            for note in found.notes:
                print(f"mfs: {note}", file=sys.stderr)
            print(json.dumps(msgspec.to_builtins(found.differences), indent=2))
        else:
            stdout().print(render_comparison(found))
