"""`mfs top`: how a run that is under way is, again and again."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live

from experiments.cli.endings import told_to_the_user
from experiments.cli.streams import stdout
from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.live.live_file import LiveRun


def top(
    directory: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="The directory of the run. Default: the newest run in runs/."),
    ] = None,
    every: Annotated[
        float, typer.Option("--every", min=0.1, help="Look every so many seconds.", metavar="SECONDS")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, print it, and end.")] = False,
) -> None:
    """Watch a run that is under way. Ctrl-C ends the watching, not the run."""
    with told_to_the_user():
        from experiments.live.live_file import newest_run, read_live
        from experiments.live.view import plain_line, rendered

        chosen = directory or newest_run(Path("runs"))
        first = None if chosen is None else read_live(chosen)
        if chosen is None or first is None:
            raise UserError(
                f"no run is under way in {directory or 'runs/'}: start one with `mfs run`, or name another"
                " directory"
            )
        console = stdout()
        if once:
            console.print(rendered(first))
            return
        try:
            if console.is_terminal:
                with Live(rendered(first), console=console, auto_refresh=False, screen=True) as screen:
                    for run in _looks(chosen, every):
                        screen.update(rendered(run), refresh=True)
            else:
                for run in _looks(chosen, every):
                    print(plain_line(run), flush=True)
        except KeyboardInterrupt:
            return  # this is how watching ends; the run goes on
        print(f"the run in {chosen} has ended", file=sys.stderr)


def _looks(directory: Path, every_s: float) -> "Iterator[LiveRun]":
    """Yield how the run is, until it ends. A look that finds nothing new yields nothing."""
    from experiments.live.live_file import read_live

    written_s = 0.0
    while (run := read_live(directory)) is not None:
        if run.written_s != written_s:
            written_s = run.written_s
            yield run
        time.sleep(every_s)
