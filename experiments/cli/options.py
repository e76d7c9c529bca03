"""Options that several commands of `mfs` have."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

ScenarioName = Annotated[str, typer.Argument(help="A scenario by name, or a YAML file.")]
Policies = Annotated[
    list[str] | None, typer.Option(help="A policy to run, instead of the scenario's; repeatable.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the scenario; repeatable."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything drawn at random.")]
NewDirectory = Annotated[Path | None, typer.Option(help="Directory for the results; new or empty.")]


def command_line() -> str:
    """Return the command line of this process, for the results."""
    return shlex.join(["mfs", *sys.argv[1:]])
