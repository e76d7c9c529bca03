"""What the commands of `mfs` share: options, words for what went wrong, a clean standard output.

Heavy imports stand inside the functions, so that `mfs --help` is there at once.
"""

import contextlib
import errno
import json
import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from experiments.errors import UserError

if TYPE_CHECKING:
    from experiments.scenario.reading import Override

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

ScenarioName = Annotated[str, typer.Argument(help="A scenario by name, or a YAML file.")]
Policies = Annotated[
    list[str] | None, typer.Option(help="A policy to run, instead of the scenario's; repeatable.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Set a key of the scenario; repeatable."),
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything drawn at random.")]
NewDirectory = Annotated[Path | None, typer.Option(help="Directory for the results; new or empty.")]


def overrides_of(
    settings: list[str] | None, policies: list[str] | None, seed: int | None
) -> "list[Override]":
    """What these options change of a scenario. Raises `UserError` for a setting that is none."""
    from experiments.scenario.reading import Override, override

    overrides = [override(text) for text in settings or []]
    if policies:
        written = " ".join(f"--policy {policy}" for policy in policies)
        overrides.append(Override("policies", json.dumps(policies), written))
    if seed is not None:
        overrides.append(Override("seed", str(seed), f"--seed {seed}"))
    return overrides


def command_line() -> str:
    """The line that asked for this, for the results."""
    return shlex.join(["mfs", *sys.argv[1:]])


def named_fabric(name: str) -> tuple[str, list[str]]:
    """The fabric that `name` stands for on this machine, and what its choice has to say, told already."""
    from testbed.fabrics import AUTO, choose

    if name != AUTO:
        return name, []
    chosen = choose()
    if chosen.note is None:
        return chosen.name, []
    print(f"mfs: {chosen.note}", file=sys.stderr)
    return chosen.name, [chosen.note]


def stdout(least_width: int = 0) -> Console:
    """Where tables go. One that needs `least_width` columns is better wrapped by a narrow terminal, line by
    line, than squeezed into it."""
    console = Console(file=sys.stdout, highlight=False)
    if console.width < least_width:
        console = Console(file=sys.stdout, highlight=False, width=least_width)
    return console


@contextlib.contextmanager
def standard_output_kept_clean() -> Iterator[None]:
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


class _Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does, with everything put away and a word on what is left."""


def _terminate(*_: object) -> None:
    raise _Terminated


@contextlib.contextmanager
def told_to_the_user() -> Iterator[None]:
    """Turn what a user can cause into one message on standard error and an exit code."""
    from testbed.fabric import FabricUnavailable, JobRefused, RunFailed

    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except UserError as error:
        _stop(error, str(error), EXIT_REFUSED)
    except FabricUnavailable as error:
        from experiments.cli.doctor_table import unavailable_text

        _stop(error, unavailable_text(error), EXIT_REFUSED)
    except JobRefused as error:
        _stop(error, f"not on this machine: {error}; `--fabric sim` simulates it", EXIT_REFUSED)
    except RunFailed as error:
        _stop(error, f"the run failed: {error}", EXIT_FAILED)
    except _Terminated as error:
        _stop(error, "terminated", EXIT_TERMINATED)
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
    finally:
        signal.signal(signal.SIGTERM, before)


def _standard_output_is_gone() -> None:
    """Nothing more goes there. Python would flush what is left once more at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(error: BaseException, message: str, code: int) -> None:
    print("\n".join([f"mfs: {message}", *getattr(error, "__notes__", ())]), file=sys.stderr)
    raise SystemExit(code)
