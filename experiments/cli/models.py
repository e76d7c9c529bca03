"""`mfs models`: what follows from the shapes of models."""

import json
from typing import Annotated

import typer

from experiments.cli.endings import told_to_the_user
from experiments.cli.streams import stdout


def models(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME|FILE]", help="A model, a Hugging Face config.json, or a directory with one."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the shape, or all shapes, as JSON and nothing else.")
    ] = False,
) -> None:
    """List the models, or show one: parameters, bytes of KV, FLOPs of a layer."""
    with told_to_the_user():
        import msgspec

        from experiments.cli.model_tables import details, notes, overview
        from experiments.scenario.model_file import model_from_option
        from testbed.models.known_models import MODELS

        if name is not None:
            shape = model_from_option(name)
            if as_json:
                print(json.dumps(msgspec.to_builtins(shape), indent=2))
            else:
                stdout().print(details(shape))
                if said := notes(shape):
                    stdout().print(said, soft_wrap=True, highlight=False)
        elif as_json:
            print(json.dumps([msgspec.to_builtins(shape) for shape in MODELS.values()], indent=2))
        else:
            stdout().print(overview(MODELS.values()))
