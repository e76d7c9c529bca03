"""`mfs scenarios`: a list of the scenarios, or one with all its keys."""

import json
from typing import Annotated

import typer

from experiments.cli.completion import scenario_names_like
from experiments.cli.endings import told_to_the_user
from experiments.cli.listing import aligned, list_width


def scenarios(
    name: Annotated[
        str | None,
        typer.Argument(
            help="A scenario by name, or a YAML file: print all its keys.", autocompletion=scenario_names_like
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the list, or the scenario, as JSON and nothing else.")
    ] = False,
) -> None:
    """List the scenarios, or print one with all its keys and what they mean."""
    with told_to_the_user():
        from experiments.scenario.reading import builtin_scenarios, load_scenario
        from experiments.scenario.text import to_yaml

        if name is not None:
            scenario = load_scenario(name)
            if as_json:
                print(json.dumps(scenario.model_dump(mode="json", by_alias=True), indent=2))
            else:
                print(to_yaml(scenario), end="")
            return
        descriptions = {known: load_scenario(known).description for known in builtin_scenarios()}
        if as_json:
            told = [{"name": known, "description": text} for known, text in descriptions.items()]
            print(json.dumps(told, indent=2))
        else:
            print("\n".join(aligned(descriptions, list_width())))
