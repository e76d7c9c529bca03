"""`mfs scenarios`: a list of the scenarios, or one with all its keys."""

from typing import Annotated

import typer

from experiments.cli.endings import told_to_the_user
from experiments.cli.listing import aligned


def scenarios(
    name: Annotated[
        str | None, typer.Argument(help="A scenario by name, or a YAML file: print all its keys.")
    ] = None,
) -> None:
    """List the scenarios, or print one with all its keys and what they mean."""
    with told_to_the_user():
        from experiments.scenario.reading import builtin_scenarios, load_scenario
        from experiments.scenario.text import to_yaml

        if name is not None:
            print(to_yaml(load_scenario(name)), end="")
            return
        descriptions = {known: load_scenario(known).description for known in builtin_scenarios()}
        print("\n".join(aligned(descriptions)))
