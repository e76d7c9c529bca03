"""Reading the emulated runs that simulations are compared with."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pyarrow as pa

from experiments.errors import UserError
from experiments.results.checksums import SUMMARY, check_files, read_json
from experiments.results.parquet import TABLES, read_tables
from testbed.fabric import FabricName
from testbed.job import Job, Scale
from testbed.record import FlowRow, RequestRow


class Rows(Protocol):
    """A `RunRecord` or its tables."""

    @property
    def requests(self) -> Sequence[RequestRow]: ...

    @property
    def flows(self) -> Iterable[FlowRow]: ...


class Emulated(msgspec.Struct, frozen=True, kw_only=True):
    """The emulated runs in a directory: their scale, their rows by policy, and the policies whose runs are
    not faithful."""

    scale: Scale
    rows: dict[str, Any]
    unfaithful: tuple[str, ...]


def read_emulated(path: Path) -> Emulated:
    """Read the runs in `path`, which `mfs run` or `mfs validate` wrote.

    Raises `UserError` if it is not the directory of a finished run on the emulated fabric.
    """
    try:
        check_files(path, [SUMMARY, *(f"{name}.parquet" for name in TABLES.values())])
        summary = read_json(path / SUMMARY)
        if summary["fabric"] != FabricName.MININET:
            raise UserError(f"--emulated {path}: this is a run of the fabric {summary['fabric']!r}")
        runs = summary["runs"]
        return Emulated(
            scale=msgspec.convert(summary["scale"], Scale),
            rows={run["policy"]: read_tables(path, run["policy"]) for run in runs},
            unfaithful=tuple(run["policy"] for run in runs if not run["fidelity"]["faithful"]),
        )
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise UserError(f"--emulated {path}: not the directory of a finished run: {error}") from error


def check_same_work(emulated: Emulated, jobs: Mapping[str, Job]) -> None:
    """Raise `UserError` if the runs did other work than `jobs`, for instance because another version of the
    code made it."""
    for policy, job in jobs.items():
        if policy not in emulated.rows:
            raise UserError(f"--policy {policy}: was not emulated (emulated: {', '.join(emulated.rows)})")
        if job.scale != emulated.scale:
            then, now = emulated.scale, job.scale
            raise UserError(
                f"--emulated: the run was at time x{then.time_dilation:g}, bytes x{then.bytes_scale:g}; its"
                f" scenario now gives x{now.time_dilation:g}, x{now.bytes_scale:g}: emulate it again"
            )
        rows = emulated.rows[policy]
        # When a later turn of a conversation arrives depends on the run.
        turns = {request.id for request in job.requests if request.after is not None}
        wanted = sorted(
            (request.id, 0 if request.id in turns else request.arrival_ns, request.prompt_tokens)
            for request in job.requests
        )
        had_requests = sorted(
            (row.request, 0 if row.request in turns else row.arrival_ns, row.prompt_tokens)
            for row in rows.requests
        )
        if wanted != had_requests:
            raise UserError("--emulated: its scenario now makes other requests: emulate it again")
        if job.flows and {flow.transfer.id for flow in job.flows} != {flow.id for flow in rows.flows}:
            raise UserError("--emulated: its scenario now has other flows: emulate it again")
