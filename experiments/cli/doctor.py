"""`mfs doctor`: what each fabric needs on this machine, and what is in the way of Python."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from experiments.cli.completion import fabric_names_like
from experiments.cli.endings import EXIT_REFUSED, told_to_the_user
from experiments.cli.streams import stdout
from experiments.errors import UserError

if TYPE_CHECKING:
    from testbed.fabric import Requirement


def doctor(
    fabric: Annotated[
        str | None,
        typer.Option(
            help="Exit with code 2 if this fabric cannot run here; default: if none can.",
            autocompletion=fabric_names_like,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
) -> None:
    """List what each fabric needs on this machine, and the command that installs what is missing."""
    with told_to_the_user():
        from experiments.cli.fabric_needs import needs_table, needs_verdict, works
        from experiments.cli.hidden_rooms import hidden_by
        from testbed.fabrics import AUTO, FABRICS, choose

        if fabric is not None and fabric not in FABRICS:
            raise UserError(f"--fabric {fabric}: not a known fabric (known: {', '.join(FABRICS)})")
        needs = {str(name): make().requirements() for name, make in FABRICS.items()}
        hidden = hidden_by(Path.cwd())
        if as_json:
            _print_json(needs, hidden, choose().name)
        else:
            stdout().print(needs_table(needs))
            print(needs_verdict(needs))
            for line in hidden:
                print(f"in this folder: {line}")
            print(f"{AUTO}, the default: {choose().name}")
        if not any(works(needs[name]) for name in ([fabric] if fabric else needs)):
            raise typer.Exit(EXIT_REFUSED)


def _print_json(needs: "Mapping[str, Sequence[Requirement]]", hidden: Sequence[str], default: str) -> None:
    import msgspec

    from experiments.cli.fabric_needs import works

    told = {
        "fabrics": {
            name: {"works": works(of_fabric), "needs": msgspec.to_builtins(of_fabric)}
            for name, of_fabric in needs.items()
        },
        "auto": str(default),
        "hidden": list(hidden),
    }
    print(json.dumps(told, indent=2))
