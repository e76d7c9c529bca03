"""The `mfs` command: its verbs, each in a module of its own.

The verbs read options, call what does the work, and report errors. Heavy imports are inside the commands,
so that `mfs --help` is fast.
"""

import gc
import logging
import os
import sys
from importlib import metadata
from typing import Annotated, Final

import typer

from experiments.cli.bench import bench
from experiments.cli.calibrate import calibrate
from experiments.cli.capacity import capacity
from experiments.cli.clairvoyant import clairvoyant
from experiments.cli.cluster import cluster
from experiments.cli.compare import compare
from experiments.cli.completion import completion, prepare
from experiments.cli.doctor import doctor
from experiments.cli.endings import told_to_the_user
from experiments.cli.explain import explain
from experiments.cli.figures import plot, table
from experiments.cli.models import models
from experiments.cli.policies import policies
from experiments.cli.report import report
from experiments.cli.run import run
from experiments.cli.scenarios import scenarios
from experiments.cli.sweep import sweep
from experiments.cli.top import top
from experiments.cli.validate import validate
from experiments.cli.workload import workload

_ALLOCATIONS_PER_COLLECTION: Final = 100_000

app = typer.Typer(
    name="mfs",
    help="A testbed for multi-stage flow scheduling in LLM serving.",
    no_args_is_help=True,
    add_completion=False,  # `mfs completion` prints the script
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
# The help lists commands in this order, and then the groups.
for command in (
    run,
    top,
    sweep,
    capacity,
    clairvoyant,
    compare,
    plot,
    table,
    models,
    validate,
    doctor,
    scenarios,
    policies,
    report,
    explain,
    completion,
):
    app.command()(command)
app.add_typer(bench, name="bench")
app.add_typer(workload, name="workload")
app.add_typer(calibrate, name="calibrate")
app.add_typer(cluster, name="cluster")


def main() -> None:
    """Run the `mfs` command, with the arguments of this process."""
    # Processes that a command starts must not import what happens to lie in the working directory: a queue.py
    # there would replace Python's own.
    os.environ["PYTHONSAFEPATH"] = "1"
    # Rows and results are not in cycles, so a collection finds next to nothing, and it looks at all of them.
    gc.set_threshold(_ALLOCATIONS_PER_COLLECTION, 50, 100)
    prepare()
    try:
        with told_to_the_user():
            app()
    finally:
        # At the end of a process, Python collects once more all that is left, which would take a tenth of the
        # time of a small run and frees nothing that the end of the process does not free.
        gc.freeze()


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"mfs {metadata.version('mfs-testbed')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
) -> None:
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING)
