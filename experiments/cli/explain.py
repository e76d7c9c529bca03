"""`mfs explain`: what happened to a flow or a request."""

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.endings import told_to_the_user
from experiments.cli.streams import printable
from experiments.errors import UserError


def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    flow: Annotated[str | None, typer.Option(metavar="ID", help="The flow to explain.")] = None,
    request: Annotated[int | None, typer.Option(metavar="N", help="The request to explain.")] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="SPEC", help="One policy of the run; default: all of them.")
    ] = None,
) -> None:
    """Explain what happened to one flow or one request of a run, and why."""
    with told_to_the_user():
        from experiments.explain.explain import explain_flow, explain_request

        match flow, request:
            case str(), None:
                print(printable(explain_flow(run, flow, policy)))
            case None, int():
                print(printable(explain_request(run, request, policy)))
            case _:
                raise UserError("give either --flow ID or --request N")
