"""Writing a run directory, which `experiments.results.reading` reads.

`docs/reference/results.md` describes every file. Each file is replaced atomically, and `summary.json` is
written after everything that it sums up, so a directory that has one has complete tables. Before it comes
`versions.json`, with the digests of all (`experiments.results.checksums`). The report is
made from the directory afterwards (`experiments.report.run_report`).
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Protocol

import msgspec

from experiments.atomic_file import remove_left_behind, replacing, write_text
from experiments.json_text import json_text
from experiments.results.checksums import RESULTS, SUMMARY, VERSIONS, digests_in
from experiments.results.distributions import distributions, write_distributions
from experiments.results.excerpt import excerpt
from experiments.results.folder_names import folder_names
from experiments.results.gap import Ceiling
from experiments.results.limits import Resources
from experiments.results.machine import Machine
from experiments.results.measures import Measures, measure
from experiments.results.parquet import TABLES, write_tables
from experiments.results.perfetto import trace_events, write_timeline
from experiments.results.provenance import timing, versions
from experiments.results.summary import Summary, summarise
from experiments.results.trace_window import TRACE_FILE, Window
from experiments.side_by_side import all_of
from testbed.job import Scale
from testbed.record import RunRecord

_TABLES: Final = "all tables"
"""The name of their writing beside those of policies, which are none."""
_TIMING: Final = "timing.json"
_QUEUES: Final = "queues.json"
_FIDELITY: Final = "fidelity.json"
_CURVES: Final = "distributions.json"
_FILES: Final = (_QUEUES, _FIDELITY, _CURVES, TRACE_FILE)
"""The files of each policy."""


class Say(Protocol):
    """Hears what goes on, and how much of it is done."""

    def __call__(self, phase: str, done: int = 0, total: int = 0) -> None: ...


def _unheard(phase: str, done: int = 0, total: int = 0) -> None:
    """Nobody wants to know."""


def write_run(
    out: Path,
    *,
    scenario: str,
    fabric: str,
    seed: int,
    scale: Scale,
    resolved_yaml: str,
    notes: list[str],
    records: list[RunRecord],
    placement_text: list[str],
    resources: Resources | None = None,
    files: Mapping[str, str] = MappingProxyType({}),
    command: str = "",
    started: datetime | None = None,
    unfinished: Sequence[str] = (),
    unused: Sequence[str] = (),
    ceiling: Ceiling | None = None,
    jobs: int = 1,
    trace_window: Window | None = None,
    scale_notes: Sequence[str] = (),
    machine: Machine | None = None,
    say: Say = _unheard,
    meanwhile: Callable[[], object] = lambda: None,
) -> Summary:
    """Write the run into the directory `out`, which is made if it does not exist, and return its summary.

    With `resources`, the summary says what limits each run, and the rates of its links. `files` are the
    digests of the files that the scenario names, by path. `command` is the command line of the run, and
    `started` its start. `unfinished` are the policies without a record, because the run ended before they
    finished. `ceiling` is what would be reached without a network. `unused` says what no request or
    flow used (`unused.unused_parts`). `trace_window` is the part of the run that the traces show;
    None for the one that shows most of the requests that missed their SLO. `scale_notes` say how `scale` was
    chosen, and `machine` is what was measured for that. With several `jobs`, as many
    processes write tables and traces, while this one measures.

    `say` is called with what is done, and how far that is. `meanwhile` is called when all is measured, while
    other processes may still write.

    Rows are read block by block and never collected, because a record may be larger than memory. Raises
    `ValueError` for two records of one policy, and `OSError` if the disk is full or the directory cannot be
    written.
    """
    policies = [record.policy for record in records]
    if len(set(policies)) != len(policies):
        raise ValueError(f"each policy once per run, got {', '.join(policies)}")
    folders = [out / name for name in folder_names(policies)]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
    written = ["scenario.yaml", *(f"{name}.parquet" for name in TABLES.values())]
    written += [str(path.relative_to(out)) for folder in folders for path in map(folder.__truediv__, _FILES)]
    paths = [out / name for name in (*written, _TIMING, SUMMARY, VERSIONS)]
    remove_left_behind(paths)
    write_text(out / "scenario.yaml", resolved_yaml)
    _write_json(out / _TIMING, timing(records, command=command, started=started))
    measured: list[Measures] = []

    def measure_all() -> None:
        for number, record in enumerate(records):
            say("measuring", number, len(records))
            measured.append(measure(record, resources))
        for record, folder, found in zip(records, folders, measured, strict=True):
            _write_json(folder / _QUEUES, record.queues)
            _write_json(folder / _FIDELITY, msgspec.to_builtins(record.fidelity))
            write_distributions(folder / _CURVES, distributions(found))
        through(0)
        meanwhile()

    through = partial(say, "writing tables and traces", total=1 + len(records))
    makers: dict[str, Callable[[], str | None]] = {_TABLES: partial(write_tables, out, records)}
    for record, folder in zip(records, folders, strict=True):
        path = folder / TRACE_FILE
        makers[record.policy] = partial(_write_trace, path, record, scale, scenario, trace_window)
    try:
        only = all_of(makers, jobs=jobs, meanwhile=measure_all, so_far=through)
    except BaseException:
        remove_left_behind(paths)  # the processes that wrote have been killed
        raise
    del only[_TABLES]
    say("summing up")
    told = [*notes, *_trace_notes(only)]
    summary = summarise(
        scenario=scenario,
        fabric=fabric,
        seed=seed,
        scale=scale,
        records=records,
        measured=measured,
        notes=told,
        placement_text=placement_text,
        resources=resources,
        unfinished=unfinished,
        unused=unused,
        ceiling=ceiling,
        scale_notes=scale_notes,
        machine=machine,
    )
    for run in summary["runs"]:
        run["trace_shows"] = only[run["policy"]]
    text = json_text(summary)
    digests = digests_in(out, written) | {SUMMARY: hashlib.sha256(text.encode()).hexdigest()}
    _write_json(out / VERSIONS, versions(records, files, machine) | {RESULTS: digests})
    write_text(out / SUMMARY, text)
    return summary


def _trace_notes(only: Mapping[str, str | None]) -> list[str]:
    """Say in one note what the traces show that do not show the whole run. `only` is by policy."""
    policies: dict[str, list[str]] = {}
    for policy, what in only.items():
        if what is not None:
            policies.setdefault(what, []).append(policy)
    parts = [f"of {', '.join(whose)}, {what}" for what, whose in policies.items()]
    return [f"{TRACE_FILE} shows only a part of the run: {'. '.join(parts)}"] if parts else []


def _write_trace(
    path: Path, record: RunRecord, scale: Scale, scenario: str, window: Window | None
) -> str | None:
    """Write the timeline of `record`, and return in words what it shows, or None if that is all."""
    shown = excerpt(record, scale, window)
    with replacing(path) as temporary:
        title = f"{scenario}: {record.policy}"
        write_timeline(temporary, trace_events(shown), title=title, only=shown.only)
    return shown.only


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json_text(content))
