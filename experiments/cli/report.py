"""`mfs report`: an HTML report on existing runs."""

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.endings import told_to_the_user
from experiments.errors import UserError


def report(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Run directories to report on together.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(help="The HTML file; default: report.html, or request-N.html, in the first DIR."),
    ] = None,
    request: Annotated[
        int | None, typer.Option(metavar="N", help="Write a page on this request instead.")
    ] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="SPEC", help="With --request: one policy; default: all of them.")
    ] = None,
) -> None:
    """Write one HTML report on one run, or on several side by side, or on one request."""
    with told_to_the_user():
        if policy is not None and request is None:
            raise UserError("--policy: it goes with --request; a report is on all policies of its runs")
        from experiments.report.request_page import write_request_page
        from experiments.report.run_report import write_report
        from experiments.results.ended_early import not_finished

        for directory in directories:
            for name, what in (("sweep.html", "a sweep"), ("validate.json", "a validation")):
                if (directory / name).is_file():
                    shown = directory / ("report.html" if name.endswith("json") else name)
                    raise UserError(f"{directory}: the directory of {what}; its page is {shown}")
            if not (directory / "summary.json").is_file():
                reason = f"{directory}: not a run directory: it has no summary.json"
                raise UserError(not_finished(directory) or reason)
        if request is None:
            print(write_report(directories, out or directories[0] / "report.html"))
        else:
            page = out or directories[0] / f"request-{request}.html"
            print(write_request_page(directories, request, page, policy))
