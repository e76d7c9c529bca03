"""From a checked scenario to a directory of results: resolve, run every policy, write."""

import contextlib
import itertools
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.resolve import Resolved, resolve
from experiments.scenario import Scenario
from experiments.scenario_text import to_yaml
from testbed.fabric import Fabric, FabricUnavailable, Progress
from testbed.job import Placement
from testbed.record import RunRecord

Listener = Callable[[str, Progress], None]
"""Told the policy that runs and how far it is."""


def run_scenario(
    scenario: Scenario, *, fabric: Fabric, out: Path | None, progress: Listener, command: str = ""
) -> tuple[Path, dict[str, Any]]:
    """Run every policy of `scenario` on `fabric`; returns the run directory and its summary.

    `out` defaults to `runs/<date>-<time>-<scenario>`; `command` is the line that asked for the run,
    for the report. Nothing is started before the scenario is
    resolved, the fabric has said that it can work here and the directory can be written to.

    Raises `UserError` for what the user can mend, and what `Fabric.run` raises.
    """
    resolved = resolve(scenario)
    first = resolved.jobs[0]
    missing = [need for need in fabric.requirements() if need.needed and not need.ok]
    if missing:
        raise FabricUnavailable(fabric.name, missing)
    # Only now: it loads matplotlib, which has things to say about homes it cannot write to.
    from experiments.results import write_run

    with _run_directory(out, scenario.name) as directory:
        records = _run_policies(resolved, fabric, progress)
        summary = write_run(
            directory,
            scenario=scenario.name,
            fabric=fabric.name,
            seed=scenario.seed,
            scale=first.scale,
            resolved_yaml=to_yaml(scenario),
            notes=list(resolved.notes),
            records=records,
            placement_text=placement_text(first.placement),
            link_bps={link.id: link.bps for link in first.topology.links},
            command=command,
        )
    return directory, summary


def _run_policies(resolved: Resolved, fabric: Fabric, progress: Listener) -> list[RunRecord]:
    def listener(policy: str) -> Callable[[Progress], None]:
        return lambda state: progress(policy, state)

    return [fabric.run(job, listener(job.policy)) for job in resolved.jobs]


def placement_text(placement: Placement) -> list[str]:
    """One line per server that has ranks: `h1: rank 0 (unit0, 0), rank 8 (decode, 0)`."""
    by_server: dict[str, list[str]] = {}
    for spec in placement.ranks:
        place = f"rank {spec.rank} ({spec.unit or spec.role.value}, {spec.index})"
        by_server.setdefault(spec.server, []).append(place)
    return [f"{server}: {', '.join(places)}" for server, places in by_server.items()]


@contextlib.contextmanager
def _run_directory(out: Path | None, scenario: str) -> Iterator[Path]:
    """A directory that is there, empty and writable; taken away again if the run leaves it empty."""
    made = out is None or not out.exists()
    try:
        directory = _new_directory(scenario) if out is None else _empty_directory(out)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        raise UserError(
            f"{out or Path('runs').resolve()}: cannot write results there: {error.strerror}"
        ) from None
    try:
        yield directory
    finally:
        if made:
            with contextlib.suppress(OSError):  # not empty: there are results in it
                directory.rmdir()


def _empty_directory(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; name a directory that is new or empty")
    out.mkdir(parents=True, exist_ok=True)
    if any(out.iterdir()):
        raise UserError(f"--out {out}: is not empty; name a directory that is new or empty")
    return out


def _new_directory(scenario: str) -> Path:
    """`runs/<date>-<time>-<scenario>`, with a number behind it if another run was as quick."""
    stem = f"{datetime.now():%Y%m%d-%H%M%S}-{scenario}"
    for n in itertools.count(1):
        directory = Path("runs") / (stem if n == 1 else f"{stem}-{n}")
        with contextlib.suppress(FileExistsError):
            directory.mkdir(parents=True)
            break
    return directory
