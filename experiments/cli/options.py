"""Options that several commands of `mfs` have, and what they change in a scenario."""

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from experiments.scenario.reading import Override

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


def overrides_of(
    settings: list[str] | None, policies: list[str] | None, seed: int | None
) -> "list[Override]":
    """Return what these options change in a scenario. Raises `UserError` for a malformed setting."""
    from experiments.scenario.reading import Override, override

    overrides = [override(text) for text in settings or []]
    if policies:
        written = " ".join(f"--policy {policy}" for policy in policies)
        overrides.append(Override("policies", json.dumps(policies), written))
    if seed is not None:
        overrides.append(Override("seed", str(seed), f"--seed {seed}"))
    return overrides


def command_line() -> str:
    """Return the command line of this process, for the results."""
    return shlex.join(["mfs", *sys.argv[1:]])
