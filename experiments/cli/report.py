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
        Path | None, typer.Option(help="The HTML file; default: report.html in the first DIR.")
    ] = None,
) -> None:
    """Write one HTML report on one run, or on several side by side."""
    with told_to_the_user():
        from experiments.report.run_report import write_report

        for directory in directories:
            for page, what in (("sweep.html", "a sweep"), ("validate.json", "a validation")):
                if (directory / page).is_file():
                    page = "report.html" if page.endswith("json") else page
                    raise UserError(f"{directory}: the directory of {what}; its page is {directory / page}")
            if not (directory / "summary.json").is_file():
                raise UserError(f"{directory}: not a run directory: it has no summary.json")
        print(write_report(directories, out or directories[0] / "report.html"))
