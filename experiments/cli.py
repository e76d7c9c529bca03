"""The `mfs` command. It reads options, calls what does the work, and words what went wrong.

Heavy imports stand inside the commands, so that `mfs --help` is there at once.
"""

import contextlib
import errno
import json
import logging
import os
import shlex
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from experiments.errors import UserError

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130

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
    fabric: Annotated[str | None, typer.Option(help="The fabric to run on.")] = None,
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

        with _standard_output_kept_clean(), display_for(Console(stderr=True)) as display:
            directory, summary = run_scenario(
                chosen,
                fabric=FABRICS[chosen.fabric](),
                out=out,
                progress=display.update,
                command=shlex.join(["mfs", *sys.argv[1:]]),
            )
        if as_json:
            print(json.dumps(summary, indent=2))
            print(f"results: {directory}", file=sys.stderr)
        else:
            _show_results(directory, summary)


@app.command()
def doctor() -> None:
    """List what each fabric needs on this machine, and the command that installs what is missing."""
    with _told_to_the_user():
        from experiments.doctor import doctor_table, doctor_verdict, works
        from experiments.scenario import Scenario
        from testbed.fabrics import FABRICS

        needs = {name: make().requirements() for name, make in FABRICS.items()}
        _stdout().print(doctor_table(needs))
        print(doctor_verdict(needs))
        if not works(needs[Scenario().fabric]):
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
        from controller.policies import describe, option_lines, policy_names
        from controller.policies.spec import CONTROL, CONTROL_SUMMARY, control_option_lines

        options = {name: option_lines(name) for name in policy_names()}
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


def _show_results(directory: Path, summary: dict[str, Any]) -> None:
    from experiments.tables import render_summary

    _stdout().print(render_summary(summary))
    print(f"report: {directory / 'report.html'}")


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
        _stop(str(error), EXIT_REFUSED)
    except FabricUnavailable as error:
        from experiments.doctor import unavailable_text

        _stop(unavailable_text(error), EXIT_REFUSED)
    except JobRefused as error:
        _stop(f"not on this machine: {error}", EXIT_REFUSED)
    except RunFailed as error:
        _stop(f"the run failed: {error}", EXIT_FAILED)
    except KeyboardInterrupt:
        _stop("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:
        # The reader (`| head`) has gone. Python would flush into the closed pipe once more at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if error.errno == errno.ENOSPC:
            _stop(f"the disk is full: {error.filename or 'results could not be written'}", EXIT_FAILED)
        if error.filename is None:
            raise  # not about a file the user named: a bug, to be seen whole
        _stop(f"{error.filename}: {error.strerror}", EXIT_REFUSED)


def _stop(message: str, code: int) -> None:
    print(f"mfs: {message}", file=sys.stderr)
    raise SystemExit(code)
