"""`mfs clairvoyant`: how far policies are from the best schedule that a search finds."""

import json
import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from experiments.cli.endings import told_to_the_user
from experiments.cli.options import (
    Policies,
    Replicates,
    ScenarioName,
    SearchDirectory,
    Settings,
    command_line,
)
from experiments.cli.streams import standard_output_kept_clean, stdout


def clairvoyant(
    scenario: ScenarioName,
    policy: Policies = None,
    over: Replicates = None,
    batches_of: Annotated[str, typer.Option(help="The policy whose batches all schedules run.")] = "fair",
    evaluations: Annotated[
        int, typer.Option(min=100, max=1_000_000, help="How many schedules to simulate per replicate.")
    ] = 1000,
    parts: Annotated[
        int, typer.Option(min=1, max=64, help="In how many parts of the layers an order can differ.")
    ] = 2,
    settings: Settings = None,
    out: SearchDirectory = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Replicates at once; default: as many as there are cores.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print clairvoyant.json, and nothing else, on standard output.")
    ] = False,
) -> None:
    """Search for a better schedule than those of the policies, simulated, knowing the whole run."""
    with told_to_the_user():
        from experiments.clairvoyant.question import Question
        from experiments.clairvoyant.run import ANSWER, find_schedules
        from experiments.clairvoyant.table import schedules_table, sentences
        from experiments.cli.progress_display import display_for
        from experiments.sweep.plan import read_over

        question = Question(
            scenario=scenario,
            settings=tuple(settings or ()),
            policies=tuple(policy or ()),
            replicates=read_over(over) if over else None,
            batches_of=batches_of,
            evaluations=evaluations,
            parts=parts,
        )
        with standard_output_kept_clean(), display_for(Console(stderr=True)) as display:
            directory, content = find_schedules(
                question,
                out=out,
                jobs=jobs or len(os.sched_getaffinity(0)),
                progress=display.update,
                command=command_line(),
            )
        if as_json:
            print(json.dumps(content, indent=2))
            print(f"results: {directory}", file=sys.stderr)
            return
        stdout().print(schedules_table(content))
        for line in (*sentences(content), *(f"note: {note}" for note in content["notes"])):
            print(line)
        print(f"results: {directory / ANSWER}")
