"""`mfs validate`: the same requests, emulated and simulated, compared."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from experiments.cli.endings import EXIT_FAILED, told_to_the_user
from experiments.cli.options import NewDirectory, Policies, Seed, Settings, command_line
from experiments.cli.streams import standard_output_kept_clean, stdout
from experiments.errors import UserError
from testbed.fabric import FabricName


def validate(
    scenario: Annotated[
        str | None, typer.Argument(help="A scenario by name, or a YAML file; not with --emulated.")
    ] = None,
    policy: Policies = None,
    settings: Settings = None,
    seed: Seed = None,
    emulated: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Use this run directory of the emulated fabric instead of emulating."
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Simulate with the overheads that `mfs calibrate` measured."),
    ] = None,
    calibrates: Annotated[
        bool, typer.Option("--calibrate", help="Measure the overheads first, at the scale of the run.")
    ] = False,
    repeats: Annotated[
        bool,
        typer.Option("--repeat", help="Emulate once more, to see how well emulation agrees with itself."),
    ] = False,
    out: NewDirectory = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print validate.json, and nothing else, on standard output.")
    ] = False,
) -> None:
    """Compare a scenario on the emulated and the simulated fabric. Exit with 1 if they differ too much."""
    with told_to_the_user():
        from experiments.scenario.overrides import overrides_of
        from experiments.scenario.reading import Override, load_scenario

        if (scenario is None) == (emulated is None):
            raise UserError("give either a SCENARIO or --emulated DIR")
        if calibrates and calibration is not None:
            raise UserError("give either --calibration or --calibrate")
        if emulated is not None and (settings or seed is not None):
            raise UserError("--emulated: the run is in the directory; --set and --seed cannot change it")
        overrides = overrides_of(settings or (), policy or (), seed)
        if calibration is not None:
            path = json.dumps(str(calibration.absolute()))
            overrides.append(Override("simulation.calibration", path, f"--calibration {calibration}"))
        if emulated is not None:
            if not (emulated / "summary.json").is_file():
                raise UserError(f"--emulated {emulated}: not a run directory: it has no summary.json")
            scenario = str(emulated / "scenario.yaml")
        chosen = load_scenario(str(scenario), overrides)

        from experiments.cli.progress_display import display_for
        from experiments.validate.run import validate as run_both
        from experiments.validate.table import render_table
        from testbed.fabrics import FABRICS

        with standard_output_kept_clean(), display_for(Console(stderr=True)) as display:
            directory, result = run_both(
                chosen,
                emulator=FABRICS[FabricName.MININET](),
                simulator=FABRICS[FabricName.SIM](),
                emulated=emulated,
                calibrates=calibrates,
                repeats=repeats,
                out=out,
                progress=display.update,
                command=command_line(),
            )
        if as_json:
            print((directory / "validate.json").read_text(encoding="utf-8"), end="")
            print(f"results: {directory}", file=sys.stderr)
        else:
            stdout().print(render_table(result))
            print(f"report: {directory / 'report.html'}")
        if not result.met:
            raise typer.Exit(EXIT_FAILED)
