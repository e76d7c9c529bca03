"""The commands that compare runs: many of them, or one on both fabrics."""

import enum
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from experiments.cli.common import (
    EXIT_FAILED,
    NewDirectory,
    Policies,
    ScenarioName,
    Seed,
    Settings,
    command_line,
    named_fabric,
    overrides_of,
    standard_output_kept_clean,
    stdout,
    told_to_the_user,
)
from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.sweep.plan import Plan


class Keep(enum.StrEnum):
    """What a cell of a sweep keeps."""

    SUMMARY = "summary"
    TABLES = "tables"


class MeasuredDevice(enum.StrEnum):
    """What `mfs calibrate gpu` measures."""

    AUTO = "auto"
    CUDA = "cuda"
    CPU = "cpu"


def sweep(
    scenario: ScenarioName,
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="A key and its values: V1,V2,... or START:STOP:STEP, both ends included; repeatable, "
            "for every combination.",
        ),
    ] = None,
    policy: Policies = None,
    settings: Settings = None,
    fabric: Annotated[str, typer.Option(help="The fabric; mininet runs one cell at a time.")] = "sim",
    out: Annotated[
        Path | None, typer.Option(help="Directory for the results; new, empty, or this sweep's, to go on.")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Cells to run at once; default: as many as there are cores.")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="joblib's engine: loky for this machine, ray or dask for a cluster.")
    ] = "loky",
    keep: Annotated[
        Keep, typer.Option(help="What a cell keeps: its summary, or its tables, trace and report too.")
    ] = Keep.SUMMARY,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print sweep.json, and nothing else, on standard output."),
    ] = False,
) -> None:
    """Run a scenario at every combination of values, in parallel. Interrupted, it can go on."""
    with told_to_the_user():
        from experiments.sweep.plan import make_plan, read_over

        ranges = [read_over(text) for text in over or []]
        named = named_fabric(fabric)[0]
        plan = make_plan(scenario, over=ranges, settings=settings or [], policies=policy or [], fabric=named)

        # Only now what takes long to import: a slip in the options is answered at once.
        from experiments.cli.progress_display import sweep_display_for
        from experiments.sweep.run import run_sweep

        with standard_output_kept_clean(), sweep_display_for(Console(stderr=True)) as display:
            directory, content = run_sweep(
                plan,
                out=out,
                tables=keep is Keep.TABLES,
                jobs=jobs,
                backend=backend,
                progress=display.update,
                words=["mfs", *sys.argv[1:]],
            )
        if as_json:
            print(json.dumps(content, indent=2))
            print(f"results: {directory}", file=sys.stderr)
        else:
            _show_sweep(plan, directory, content)
        failed = [cell for cell in content["cells"] if cell["error"] is not None]
        for cell in failed:
            print(f"mfs: {directory / cell['cell']}: {cell['error'].splitlines()[0]}", file=sys.stderr)
        if failed:
            raise typer.Exit(EXIT_FAILED)


calibrate = typer.Typer(invoke_without_command=True)


@calibrate.callback()
def calibrate_fabric(
    context: typer.Context,
    link_mbps: Annotated[
        float, typer.Option(min=1, max=1000, help="Rate of a link on the machine, Mb/s.")
    ] = 15.0,
    members: Annotated[
        int, typer.Option(help="Ranks of the group whose collectives are timed: 2, 4 or 8.")
    ] = 4,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("calibration.json"),
) -> None:
    """Measure what the emulated fabric adds to ideal links, for `simulation.calibration`.

    `mfs calibrate gpu` measures a GPU instead.
    """
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    with told_to_the_user():
        from experiments.calibrate.links import calibrate as measure
        from experiments.calibrate.links import calibration_table
        from experiments.calibrate.micro_jobs import MEMBERS
        from experiments.cli.progress_display import display_for
        from experiments.resolve.calibration import write_calibration
        from testbed.fabrics import FABRICS

        if members not in MEMBERS:
            raise UserError(f"--members {members}: one of {', '.join(map(str, MEMBERS))}")
        if not out.parent.is_dir():
            raise UserError(f"--out {out}: there is no directory {out.parent}")
        with standard_output_kept_clean(), display_for(Console(stderr=True)) as display:
            calibration = measure(
                FABRICS["mininet"](), link_mbps=link_mbps, members=members, progress=display.update
            )
        write_calibration(out, calibration)
        stdout().print(calibration_table(calibration))
        if not calibration.faithful:
            print(f"not faithful: {calibration.facts['broken_checks']}")
        print(f"calibration: {out}")


@calibrate.command("gpu")
def calibrate_gpu(
    device: Annotated[
        MeasuredDevice, typer.Option(help="What to measure; auto: the CUDA device of this machine.")
    ] = MeasuredDevice.AUTO,
    model: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="The model whose kernels are timed.")
    ] = "mixtral-8x7b",
    out: Annotated[Path, typer.Option(help="The profile to write.")] = Path("gpu.yaml"),
) -> None:
    """Measure what a GPU reaches of its peaks, with real kernels, for the key `gpu` of a scenario."""
    with told_to_the_user():
        from experiments.scenario.model_file import model_from_option

        if not out.parent.is_dir():
            raise UserError(f"--out {out}: there is no directory {out.parent}")
        shape = model_from_option(model)

        # Only now PyTorch, which takes seconds to import.
        from experiments.atomic_file import write_text
        from experiments.calibrate import gpu as gpus
        from experiments.scenario.gpu_profile import profile_text

        bench = gpus.open_bench(device.value)
        with Console(stderr=True).status("") as status:
            measured = gpus.measure(bench, shape, on_start=status.update)
        write_text(out, profile_text(measured.gpu, gpus.comments(measured, command_line())))
        gpu = measured.gpu
        print(f"a layer of {measured.model} on {gpu.measured}")
        stdout().print(gpus.profile_table(measured))
        print(
            f"{gpu.efficiency:.0%} of {gpu.peak_flops / 1e12:.4g} TFLOP/s, {gpu.memory_efficiency:.0%} of "
            f"{gpu.memory_bytes_per_s / 1e9:.4g} GB/s, {gpu.launch_s * 1e6:.3g} us a launch"
        )
        print(f"profile: {out}")


def validate(
    scenario: Annotated[
        str | None, typer.Argument(help="A scenario by name, or a YAML file; none with --emulated.")
    ] = None,
    policy: Policies = None,
    settings: Settings = None,
    seed: Seed = None,
    emulated: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A run directory of the emulated fabric: emulate nothing."),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Simulate with the overheads that `mfs calibrate` found."),
    ] = None,
    calibrates: Annotated[bool, typer.Option("--calibrate", help="Find them first, at this scale.")] = False,
    repeats: Annotated[
        bool, typer.Option("--repeat", help="Emulate everything once more: how well it agrees with itself.")
    ] = False,
    out: NewDirectory = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print validate.json, and nothing else, on standard output.")
    ] = False,
) -> None:
    """Run a scenario on the emulated and the simulated fabric and compare. Exits with 1 if too far apart."""
    with told_to_the_user():
        from experiments.scenario.reading import Override, load_scenario

        if (scenario is None) == (emulated is None):
            raise UserError("give either a SCENARIO or --emulated DIR")
        if calibrates and calibration is not None:
            raise UserError("give either --calibration or --calibrate")
        if emulated is not None and (settings or seed is not None):
            raise UserError("--emulated: what was run is in the directory; --set and --seed cannot change it")
        overrides = overrides_of(settings, policy, seed)
        if calibration is not None:
            path = json.dumps(str(calibration.absolute()))
            overrides.append(Override("simulation.calibration", path, f"--calibration {calibration}"))
        if emulated is not None:
            if not (emulated / "summary.json").is_file():
                raise UserError(f"--emulated {emulated}: not a run directory, it has no summary.json")
            scenario = str(emulated / "scenario.yaml")
        chosen = load_scenario(str(scenario), overrides)

        from experiments.cli.progress_display import display_for
        from experiments.validate.run import validate as run_both
        from experiments.validate.table import render_table
        from testbed.fabrics import FABRICS

        with standard_output_kept_clean(), display_for(Console(stderr=True)) as display:
            directory, result = run_both(
                chosen,
                emulator=FABRICS["mininet"](),
                simulator=FABRICS["sim"](),
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


def _refuse_options_before(context: typer.Context) -> None:
    """Those of `mfs calibrate` itself, given before a command that would not look at them."""
    for name in context.params:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            option = f"--{name.replace('_', '-')}"
            with told_to_the_user():
                raise UserError(f"{option}: write options after `calibrate {context.invoked_subcommand}`")


def _show_sweep(plan: "Plan", directory: Path, content: dict[str, Any]) -> None:
    from experiments.sweep.replicates import replicates_of
    from experiments.sweep.table import results_table

    rows = content["cells"]
    stdout().print(results_table(plan, replicates_of(plan, rows)))
    unfaithful = sum(row["faithful"] is False for row in rows)
    if unfaithful:
        print(f"{unfaithful} cells are not faithful: draw no conclusions from them")
    print(f"cells: {directory / 'sweep.csv'}\npage: {directory / 'sweep.html'}")
