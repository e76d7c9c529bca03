"""`mfs doctor`: what each fabric needs on this machine."""

from typing import Annotated

import typer

from experiments.cli.endings import EXIT_REFUSED, told_to_the_user
from experiments.cli.streams import stdout
from experiments.errors import UserError


def doctor(
    fabric: Annotated[
        str | None,
        typer.Option(help="Exit with code 2 if this fabric cannot run here; default: if none can."),
    ] = None,
) -> None:
    """List what each fabric needs on this machine, and the command that installs what is missing."""
    with told_to_the_user():
        from experiments.cli.fabric_needs import needs_table, needs_verdict, works
        from testbed.fabrics import AUTO, FABRICS, choose

        if fabric is not None and fabric not in FABRICS:
            raise UserError(f"--fabric {fabric}: not a known fabric (known: {', '.join(FABRICS)})")
        needs = {name: make().requirements() for name, make in FABRICS.items()}
        stdout().print(needs_table(needs))
        print(needs_verdict(needs))
        print(f"{AUTO}, the default: {choose().name}")
        if not any(works(needs[name]) for name in ([fabric] if fabric else needs)):
            raise typer.Exit(EXIT_REFUSED)
