"""`mfs explain`: what happened to one flow or one request of a run, in sentences.

Tables are filtered as they are read, so that only the rows asked for are kept. `flow_story` and
`request_story` put them into words.
"""

import contextlib
import difflib
import heapq
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa

from controller.flow import Decision, Stage
from experiments.errors import UserError
from experiments.explain.flow_story import flow_story, no_flow
from experiments.explain.request_life import decisions_on, lives
from experiments.explain.request_story import no_request, request_story
from experiments.nearest import nearest
from experiments.results.checksums import SUMMARY, check_files, read_json
from experiments.results.faults import FaultEntry, entries_of
from experiments.results.parquet import TABLES, TableRows
from experiments.results.requests import batches_of
from testbed.record import FlowRow, RequestRow

Row = TypeVar("Row", bound=msgspec.Struct)

_COMPARED_IDS = 2_000
"""Most ids that difflib compares, those with the longest common beginning: a run may have a million."""


class NotInRun(UserError):
    """None of the policies asked for has this flow or request."""


def explain_flow(directory: Path, flow: str, policy: str | None = None) -> str:
    """Return the story of `flow` under `policy`, or under each policy of the run.

    Raises `UserError` if `directory` is not a run directory or lacks data, and `NotInRun`, with the nearest
    ids, for an unknown flow.
    """
    run = _Run(directory)
    stories: list[str] = []
    missing: dict[tuple[str, ...], list[str]] = {}
    for name in run.chosen(policy):
        rows = run.rows(FlowRow, name, id=flow)
        if rows:
            stories.append(_flow_story(run, name, rows[0]))
        else:
            missing.setdefault(_nearest_ids(flow, run.flow_ids(name)), []).append(name)
    return _told(directory, stories, [no_flow(*item, flow) for item in missing.items()])


def explain_request(directory: Path, request: int, policy: str | None = None) -> str:
    """Return where the TTFT of `request` went, and its flows, worst first. Raises as `explain_flow`."""
    run = _Run(directory)
    stories: list[str] = []
    missing: dict[tuple[int, ...], list[str]] = {}
    for name in run.chosen(policy):
        rows = run.rows(RequestRow, name, request=request)
        if rows:
            stories.append(_request_story(run, name, rows[0]))
        else:
            missing.setdefault(run.request_numbers(name), []).append(name)
    return _told(directory, stories, [no_request(*item, request) for item in missing.items()])


def _told(directory: Path, stories: list[str], missing: list[str]) -> str:
    if not stories:
        raise NotInRun(f"{directory}: " + "\n".join(missing))
    return "\n\n".join(stories + missing)


def _flow_story(run: "_Run", policy: str, flow: FlowRow) -> str:
    decisions = run.rows(Decision, policy, flow=flow.id)
    requests: Sequence[RequestRow] = ()
    if flow.request is not None:
        requests = run.rows(RequestRow, policy, request=flow.request)
    elif flow.batch is not None:
        everyone = run.rows(RequestRow, policy)
        requests = [row for row in everyone if flow.batch in batches_of(row)]
    shares: Sequence[FlowRow] = ()
    if flow.stage is Stage.COLLECTIVE and flow.coflow is not None:
        shares = run.rows(FlowRow, policy, coflow=flow.coflow)
    ordered = sorted(decisions, key=lambda row: row.time_ns)
    return flow_story(policy, flow, ordered, requests, shares, run.faults(policy))


def _request_story(run: "_Run", policy: str, request: RequestRow) -> str:
    tables = _OfPolicy(run, policy)
    (life,) = lives(tables, [request])
    return request_story(run.path, policy, life, decisions_on(tables, [life]), run.faults(policy))


def _nearest_ids(flow: str, ids: Iterable[str]) -> tuple[str, ...]:
    alike = heapq.nlargest(_COMPARED_IDS, ids, key=lambda known: _same_beginning(known, flow))
    return tuple(difflib.get_close_matches(flow, alike, n=3, cutoff=0.5))


def _same_beginning(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


class _Run:
    """Reads rows of a run directory on demand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            check_files(path, [SUMMARY])
            runs = read_json(path / SUMMARY)["runs"]
            self._policies = [str(run["policy"]) for run in runs]
            self._faults = {str(run["policy"]): entries_of(run) for run in runs}
        except (KeyError, TypeError, msgspec.ValidationError):
            raise UserError(f"{path}: not a run directory: it has no valid {SUMMARY}") from None
        self._checked: set[str] = set()

    def chosen(self, policy: str | None) -> list[str]:
        if policy is None:
            return self._policies
        if policy in self._policies:
            return [policy]
        guess = nearest(policy, self._policies)
        hint = f"; did you mean {guess!r}?" if guess else ""
        known = ", ".join(self._policies)
        raise UserError(f"--policy {policy}: {self.path} has no such policy{hint} (it has: {known})")

    def faults(self, policy: str) -> Sequence[FaultEntry]:
        return self._faults[policy]

    def flow_ids(self, policy: str) -> Iterator[str]:
        with self._reading(FlowRow):
            for part in TableRows(self.path, FlowRow, policy).parts(["id"]):
                yield from part["id"].to_pylist()

    def request_numbers(self, policy: str) -> tuple[int, ...]:
        with self._reading(RequestRow):
            parts = TableRows(self.path, RequestRow, policy).parts(["request"])
            return tuple(sorted(number for part in parts for number in part["request"].to_pylist()))

    def rows(self, row: type[Row], policy: str, **equal: object) -> tuple[Row, ...]:
        """Return the rows of one policy whose columns have the values in `equal`."""
        return self.among(row, policy, {column: (value,) for column, value in equal.items()})

    def among(self, row: type[Row], policy: str, among: Mapping[str, Collection[Any]]) -> tuple[Row, ...]:
        """Return the rows of one policy that have, in each column, one of the values given for it."""
        with self._reading(row):
            return tuple(TableRows(self.path, row, policy).where(**among))

    @contextlib.contextmanager
    def _reading(self, row: type[msgspec.Struct]) -> Iterator[None]:
        name = f"{TABLES[row]}.parquet"
        if name not in self._checked:
            check_files(self.path, [name])
            self._checked.add(name)
        try:
            yield
        except (pa.ArrowException, msgspec.ValidationError, OSError) as error:
            raise UserError(f"{self.path / name} cannot be read: {error}") from None


class _OfPolicy:
    """The rows of one policy, as `experiments.explain.request_life` reads them."""

    def __init__(self, run: _Run, policy: str) -> None:
        self._run, self._policy = run, policy

    def rows(self, row: type[Row], **among: Collection[Any]) -> Sequence[Row]:
        return self._run.among(row, self._policy, among)
