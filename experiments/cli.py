"""The `mfs` command. It reads options, calls what does the work, and words what went wrong.

Heavy imports stand inside the commands, so that `mfs --help` is there at once.
"""

import contextlib
import enum
import errno
import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.sweep_plan import Plan

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130


class Keep(enum.StrEnum):
    """What a cell of a sweep keeps."""

    SUMMARY = "summary"
    TABLES = "tables"


app = typer.Typer(
    name="mfs",
    help="A testbed for multi-stage flow scheduling in LLM serving.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bench = typer.Typer(help="Time what has to be quick.", no_args_is_help=True)
app.add_typer(bench, name="bench")


def main() -> None:
    """Entry point of the `mfs` command."""
    with _told_to_the_user():
        app()


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


@app.command()
def run(
    scenario: Annotated[str, typer.Argument(help="A scenario by name, or a YAML file.")],
    fabric: Annotated[
        str | None, typer.Option(help="The fabric: mininet, sim, or auto for mininet where it can run.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="A policy to run, instead of the scenario's; repeatable."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the scenario; repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything drawn at random.")] = None,
    out: Annotated[Path | None, typer.Option(help="Directory for the results; new or empty.")] = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print the summary, and nothing else, on standard output."),
    ] = False,
) -> None:
    """Run a scenario: every policy on the same requests, then a table and a report."""
    with _told_to_the_user():
        from experiments.scenario_file import Override, load_scenario, override

        overrides = [override(text) for text in settings or []]
        if fabric is not None:
            overrides.append(Override("fabric", json.dumps(fabric), f"--fabric {fabric}"))
        if policy:
            overrides.append(Override("policies", json.dumps(policy), _options("--policy", policy)))
        if seed is not None:
            overrides.append(Override("seed", str(seed), f"--seed {seed}"))
        chosen = load_scenario(scenario, overrides)

        # Only now what takes long to import: a slip in the options is answered at once.
        from experiments.progress import display_for
        from experiments.run import run_scenario
        from testbed.fabrics import FABRICS

        named, notes = _named_fabric(chosen.fabric)
        chosen = chosen.model_copy(update={"fabric": named})
        with _standard_output_kept_clean(), display_for(Console(stderr=True)) as display:
            directory, summary = run_scenario(
                chosen,
                fabric=FABRICS[named](),
                out=out,
                progress=display.update,
                command=shlex.join(["mfs", *sys.argv[1:]]),
                notes=notes,
            )
        if as_json:
            timing = json.loads((directory / "timing.json").read_text(encoding="utf-8"))
            print(json.dumps(summary | {"timing": timing}, indent=2))
            print(f"results: {directory}", file=sys.stderr)
        else:
            _show_results(directory, summary)


@app.command()
def sweep(
    scenario: Annotated[str, typer.Argument(help="A scenario by name, or a YAML file.")],
    over: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUES",
            help="A key and its values: V1,V2,... or START:STOP:STEP, both ends included; repeatable, "
            "for every combination.",
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="A policy to run, instead of the scenario's; repeatable."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the scenario; repeatable."),
    ] = None,
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
    with _told_to_the_user():
        from experiments.sweep_plan import make_plan, read_over

        ranges = [read_over(text) for text in over or []]
        named = _named_fabric(fabric)[0]
        plan = make_plan(scenario, over=ranges, settings=settings or [], policies=policy or [], fabric=named)

        # Only now what takes long to import: a slip in the options is answered at once.
        from experiments.progress import sweep_display_for
        from experiments.sweep import run_sweep

        with _standard_output_kept_clean(), sweep_display_for(Console(stderr=True)) as display:
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


@app.command()
def calibrate(
    link_mbps: Annotated[
        float, typer.Option(min=1, max=1000, help="Rate of a link on the machine, Mb/s.")
    ] = 15.0,
    members: Annotated[
        int, typer.Option(help="Ranks of the group whose collectives are timed: 2, 4 or 8.")
    ] = 4,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("calibration.json"),
) -> None:
    """Measure what the emulated fabric adds to ideal links, for `simulation.calibration`."""
    with _told_to_the_user():
        from experiments.calibrate import calibrate as measure
        from experiments.calibrate import calibration_table
        from experiments.calibrate_jobs import MEMBERS
        from experiments.calibration import write_calibration
        from experiments.progress import display_for
        from testbed.fabrics import FABRICS

        if members not in MEMBERS:
            raise UserError(f"--members {members}: one of {', '.join(map(str, MEMBERS))}")
        if not out.parent.is_dir():
            raise UserError(f"--out {out}: there is no directory {out.parent}")
        with _standard_output_kept_clean(), display_for(Console(stderr=True)) as display:
            calibration = measure(
                FABRICS["mininet"](), link_mbps=link_mbps, members=members, progress=display.update
            )
        write_calibration(out, calibration)
        _stdout().print(calibration_table(calibration))
        if not calibration.faithful:
            print(f"not faithful: {calibration.facts['broken_checks']}")
        print(f"calibration: {out}")


@app.command()
def validate(
    scenario: Annotated[
        str | None, typer.Argument(help="A scenario by name, or a YAML file; none with --emulated.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(help="A policy to compare, instead of the scenario's; repeatable."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the scenario; repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of everything drawn at random.")] = None,
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
    out: Annotated[Path | None, typer.Option(help="Directory for the results; new or empty.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print validate.json, and nothing else, on standard output.")
    ] = False,
) -> None:
    """Run a scenario on the emulated and the simulated fabric and compare. Exits with 1 if too far apart."""
    with _told_to_the_user():
        from experiments.scenario_file import Override, load_scenario, override

        if (scenario is None) == (emulated is None):
            raise UserError("give either a SCENARIO or --emulated DIR")
        if calibrates and calibration is not None:
            raise UserError("give either --calibration or --calibrate")
        overrides = [override(text) for text in settings or []]
        if emulated is not None and (overrides or seed is not None):
            raise UserError("--emulated: what was run is in the directory; --set and --seed cannot change it")
        if policy:
            overrides.append(Override("policies", json.dumps(policy), _options("--policy", policy)))
        if seed is not None:
            overrides.append(Override("seed", str(seed), f"--seed {seed}"))
        if calibration is not None:
            path = json.dumps(str(calibration.absolute()))
            overrides.append(Override("simulation.calibration", path, f"--calibration {calibration}"))
        if emulated is not None:
            if not (emulated / "summary.json").is_file():
                raise UserError(f"--emulated {emulated}: not a run directory, it has no summary.json")
            scenario = str(emulated / "scenario.yaml")
        chosen = load_scenario(str(scenario), overrides)

        from experiments.progress import display_for
        from experiments.validate import validate as run_both
        from experiments.validate_report import render_table
        from testbed.fabrics import FABRICS

        with _standard_output_kept_clean(), display_for(Console(stderr=True)) as display:
            directory, result = run_both(
                chosen,
                emulator=FABRICS["mininet"](),
                simulator=FABRICS["sim"](),
                emulated=emulated,
                calibrates=calibrates,
                repeats=repeats,
                out=out,
                progress=display.update,
                command=shlex.join(["mfs", *sys.argv[1:]]),
            )
        if as_json:
            print((directory / "validate.json").read_text(encoding="utf-8"), end="")
            print(f"results: {directory}", file=sys.stderr)
        else:
            _stdout().print(render_table(result))
            print(f"report: {directory / 'report.html'}")
        if not result.met:
            raise typer.Exit(EXIT_FAILED)


@app.command()
def doctor(
    fabric: Annotated[
        str | None, typer.Option(help="Exit with 2 if this one cannot run here; default: if none can.")
    ] = None,
) -> None:
    """List what each fabric needs on this machine, and the command that installs what is missing."""
    with _told_to_the_user():
        from experiments.doctor import doctor_table, doctor_verdict, works
        from testbed.fabrics import AUTO, FABRICS, choose

        if fabric is not None and fabric not in FABRICS:
            raise UserError(f"--fabric {fabric}: no fabric here (known: {', '.join(FABRICS)})")
        needs = {name: make().requirements() for name, make in FABRICS.items()}
        _stdout().print(doctor_table(needs))
        print(doctor_verdict(needs))
        print(f"{AUTO}, the default: {choose().name}")
        if not any(works(needs[name]) for name in ([fabric] if fabric else needs)):
            raise typer.Exit(EXIT_REFUSED)


@app.command()
def scenarios(
    name: Annotated[
        str | None, typer.Argument(help="A scenario by name, or a YAML file: print all its keys.")
    ] = None,
) -> None:
    """List the scenarios, or print one with all its keys and what they mean."""
    with _told_to_the_user():
        from experiments.scenario_file import builtin_scenarios, load_scenario
        from experiments.scenario_text import to_yaml

        if name is not None:
            print(to_yaml(load_scenario(name)), end="")
            return
        descriptions = {known: load_scenario(known).description for known in builtin_scenarios()}
        print("\n".join(_aligned(descriptions)))


@app.command()
def policies() -> None:
    """List the policies and the options they take."""
    with _told_to_the_user():
        from controller.policies import describe, policy_names
        from controller.policies.spec import CONTROL, CONTROL_SUMMARY, control_option_lines

        options = {name: _option_lines(name) for name in policy_names()}
        options[f"+{CONTROL}"] = control_option_lines()
        lines = _aligned(describe() | {f"+{CONTROL}": CONTROL_SUMMARY})
        for line, of_this in zip(lines, options.values(), strict=True):
            print(line)
            for option in of_this:
                print(f"    {option}")


@app.command()
def report(
    directories: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Run directories to report on together.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file; default: report.html in the first DIR.")
    ] = None,
) -> None:
    """Write one HTML report on one run, or on several side by side."""
    with _told_to_the_user():
        from experiments.report import write_report

        for directory in directories:
            if not (directory / "summary.json").is_file():
                raise UserError(f"{directory}: not a run directory, it has no summary.json")
        print(write_report(directories, out or directories[0] / "report.html"))


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory.")],
    flow: Annotated[str | None, typer.Option(metavar="ID", help="The flow to tell about.")] = None,
    request: Annotated[int | None, typer.Option(metavar="N", help="The request to tell about.")] = None,
    policy: Annotated[
        str | None, typer.Option(metavar="SPEC", help="One policy of the run; default: all of them.")
    ] = None,
) -> None:
    """Tell what happened to one flow or one request of a run, and why."""
    with _told_to_the_user():
        from experiments.explain import explain_flow, explain_request

        match flow, request:
            case str(), None:
                print(explain_flow(run, flow, policy))
            case None, int():
                print(explain_request(run, request, policy))
            case _:
                raise UserError("give either --flow ID or --request N")


@bench.command("scheduler")
def bench_scheduler(
    policy: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="A policy to time; repeatable. Default: all.")
    ] = None,
    flows: Annotated[
        list[int] | None,
        typer.Option(min=100, help="How many flows are active; repeatable. Default: 100, 1000, 10000."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(min=0.01, max=3600, help="Wall seconds to time each pair of them.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the events.")] = 1,
    exact: Annotated[
        bool, typer.Option("--exact", help="As on a fabric that keeps an exact order, not levels only.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
) -> None:
    """Time what one event costs each policy. Interrupted, it prints what there is."""
    with _told_to_the_user():
        from experiments import bench_scheduler as timing

        policies = timing.chosen_policies(policy or [])
        counts = flows or timing.DEFAULT_FLOWS
        cells: list[timing.Cell] = []
        complete = False
        try:
            with Console(stderr=True).status("") as status:
                for cell in timing.measure(
                    policies,
                    counts,
                    seconds=seconds,
                    seed=seed,
                    exact=exact,
                    on_start=lambda name, count: status.update(f"{name}, {count} flows"),
                ):
                    cells.append(cell)
            complete = True
        finally:
            if as_json:
                told = timing.as_json(cells, seconds=seconds, seed=seed, exact=exact, complete=complete)
                print(json.dumps(told, indent=2))
            elif cells:
                _stdout().print(timing.render(cells))


def _named_fabric(name: str) -> tuple[str, list[str]]:
    """The fabric that `name` stands for on this machine, and what its choice has to say, told already."""
    from testbed.fabrics import AUTO, choose

    if name != AUTO:
        return name, []
    chosen = choose()
    if chosen.note is None:
        return chosen.name, []
    print(f"mfs: {chosen.note}", file=sys.stderr)
    return chosen.name, [chosen.note]


def _option_lines(policy: str) -> list[str]:
    """The options of a policy; none of one that does not load, whose line in the list says why."""
    from controller.policies import PolicyError, option_lines

    try:
        return option_lines(policy)
    except PolicyError:
        return []


@bench.command("sim")
def bench_sim(
    case: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A case to run; repeatable. Default: all.")
    ] = None,
    policy: Annotated[
        list[str] | None, typer.Option(metavar="SPEC", help="A policy; repeatable. Default: fair and mfs.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Set a key of every case's scenario; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the requests.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was measured as JSON.")] = False,
) -> None:
    """Time the simulated fabric on fixed cases. Interrupted, it prints what there is."""
    with _told_to_the_user():
        from experiments import bench_sim as timing

        cases = timing.chosen_cases(case or [])
        measured: list[timing.Measured] = []
        try:
            with Console(stderr=True).status("") as status:
                for one in timing.measure(
                    cases,
                    policy or timing.DEFAULT_POLICIES,
                    seed=seed,
                    settings=settings or (),
                    on_start=lambda name, spec: status.update(f"{name}, {spec}"),
                ):
                    measured.append(one)
        finally:
            if as_json:
                print(json.dumps(timing.as_json(measured, seed=seed), indent=2))
            elif measured:
                _stdout().print(timing.render(measured))


def _show_results(directory: Path, summary: dict[str, Any]) -> None:
    from experiments.tables import render_summary

    _stdout().print(render_summary(summary))
    print(f"report: {directory / 'report.html'}")


def _show_sweep(plan: "Plan", directory: Path, content: dict[str, Any]) -> None:
    from experiments.sweep_results import groups_of, results_table

    rows = content["cells"]
    _stdout().print(results_table(plan, groups_of(plan, rows)))
    unfaithful = sum(row["faithful"] is False for row in rows)
    if unfaithful:
        print(f"{unfaithful} cells are not faithful: draw no conclusions from them")
    print(f"cells: {directory / 'sweep.csv'}\npage: {directory / 'sweep.html'}")


def _stdout() -> Console:
    return Console(file=sys.stdout, highlight=False)


def _aligned(rows: Mapping[str, str]) -> list[str]:
    width = max(map(len, rows))
    return [f"{key:<{width}}  {text}".rstrip() for key, text in rows.items()]


def _options(option: str, values: list[str]) -> str:
    return " ".join(f"{option} {value}" for value in values)


@contextlib.contextmanager
def _standard_output_kept_clean() -> Iterator[None]:
    """Send what a run writes to standard output, its processes too, to standard error.

    Libraries and tools print as they like; with `--json` only the summary may come out there.
    """
    if sys.stdout is None:  # closed by the caller: there is nothing to keep clean
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _told_to_the_user() -> Iterator[None]:
    """Turn what a user can cause into one message on standard error and an exit code."""
    from testbed.fabric import FabricUnavailable, JobRefused, RunFailed

    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except UserError as error:
        _stop(error, str(error), EXIT_REFUSED)
    except FabricUnavailable as error:
        from experiments.doctor import unavailable_text

        _stop(error, unavailable_text(error), EXIT_REFUSED)
    except JobRefused as error:
        _stop(error, f"not on this machine: {error}; `--fabric sim` simulates it", EXIT_REFUSED)
    except RunFailed as error:
        _stop(error, f"the run failed: {error}", EXIT_FAILED)
    except KeyboardInterrupt as error:
        _stop(error, "interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        _standard_output_is_gone()  # the reader, say `| head`
    except OSError as error:
        if error.errno == errno.ENOSPC and error.filename is None:
            # Those who write results name the path.
            _standard_output_is_gone()
            _stop(error, f"standard output cannot be written: {error.strerror}", EXIT_FAILED)
        if error.errno == errno.ENOSPC:
            _stop(error, f"the disk is full: {error.filename}", EXIT_FAILED)
        if error.filename is None:
            raise  # not about a file the user named: a bug, to be seen whole
        _stop(error, f"{error.filename}: {error.strerror}", EXIT_REFUSED)


def _standard_output_is_gone() -> None:
    """Nothing more goes there. Python would flush what is left once more at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(error: BaseException, message: str, code: int) -> None:
    print("\n".join([f"mfs: {message}", *getattr(error, "__notes__", ())]), file=sys.stderr)
    raise SystemExit(code)
