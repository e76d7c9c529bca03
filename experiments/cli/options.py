"""Options that several commands of `mfs` have."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.completion import keys_like, policy_names_like, scenario_names_like

ScenarioName = Annotated[
    str,
    typer.Argument(help="A scenario by name, or a YAML file.", autocompletion=scenario_names_like),
]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        help="A policy to run, instead of the scenario's; repeatable.", autocompletion=policy_names_like
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Set a key of the scenario; repeatable.",
        autocompletion=keys_like,
    ),
]
Replicates = Annotated[
    str | None,
    typer.Option(
        "--over", metavar="seed=VALUES", help="Replicates: seed=1:8, or window=N, windows of a trace."
    ),
]
SearchDirectory = Annotated[
    Path | None,
    typer.Option(help="Directory for the results; new, empty, or this search's, to continue it."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything drawn at random.")]
NewDirectory = Annotated[Path | None, typer.Option(help="Directory for the results; new or empty.")]


def command_line() -> str:
    """Return the command line of this process, for the results."""
    return shlex.join(["mfs", *sys.argv[1:]])
