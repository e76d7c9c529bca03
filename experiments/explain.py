"""`mfs explain`: what happened to one flow or one request of a run, in sentences.

Only the rows asked for are kept when a table is read. `experiments.explain_text` words them.
"""

import difflib
import heapq
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from controller.flow import Stage
from experiments import explain_text
from experiments.errors import UserError
from experiments.known_names import nearest
from experiments.metrics import spans_by_batch, time_spent
from experiments.result_tables import SCHEMAS
from testbed.record import DecisionRow, FlowRow, RequestRow, SpanRow

Row = TypeVar("Row", bound=msgspec.Struct)

_COMPARED_IDS = 2_000
"""difflib looks at so many ids, those with the longest common beginning: a run may have a million."""


class NotInRun(UserError):
    """There is no flow or request of that name under any of the policies asked for."""


def explain_flow(directory: Path, flow: str, policy: str | None = None) -> str:
    """The story of `flow` under `policy`, or under each policy of the run.

    Raises `UserError` for something that is not a run directory or lacks what is needed, and
    `NotInRun` for an unknown flow, with the nearest ids.
    """
    run = _Run(directory)
    stories: list[str] = []
    missing: dict[tuple[str, ...], list[str]] = {}
    for name in run.chosen(policy):
        rows = run.rows("flows", FlowRow, name, id=flow)
        if rows:
            stories.append(_flow_story(run, name, rows[0]))
        else:
            missing.setdefault(_nearest_ids(flow, run.flow_ids(name)), []).append(name)
    return _told(directory, stories, [explain_text.no_flow(*item, flow) for item in missing.items()])


def explain_request(directory: Path, request: int, policy: str | None = None) -> str:
    """Where the TTFT of `request` went and its flows, worst first. Raises as `explain_flow` does."""
    run = _Run(directory)
    stories: list[str] = []
    missing: dict[tuple[int, ...], list[str]] = {}
    for name in run.chosen(policy):
        rows = run.rows("requests", RequestRow, name, request=request)
        if rows:
            stories.append(_request_story(run, name, rows[0]))
        else:
            missing.setdefault(run.request_numbers(name), []).append(name)
    return _told(directory, stories, [explain_text.no_request(*item, request) for item in missing.items()])


def _told(directory: Path, stories: list[str], missing: list[str]) -> str:
    if not stories:
        raise NotInRun(f"{directory}: " + "\n".join(missing))
    return "\n\n".join(stories + missing)


def _flow_story(run: "_Run", policy: str, flow: FlowRow) -> str:
    decisions = run.rows("decisions", DecisionRow, policy, flow=flow.id)
    requests: Sequence[RequestRow] = ()
    if flow.request is not None:
        requests = run.rows("requests", RequestRow, policy, request=flow.request)
    elif flow.batch is not None:
        requests = run.rows("requests", RequestRow, policy, batch=flow.batch)
    shares: Sequence[FlowRow] = ()
    if flow.stage is Stage.COLLECTIVE and flow.coflow is not None:
        shares = run.rows("flows", FlowRow, policy, coflow=flow.coflow)
    return explain_text.flow_story(
        policy, flow, sorted(decisions, key=lambda row: row.time_ns), requests, shares
    )


def _request_story(run: "_Run", policy: str, request: RequestRow) -> str:
    flows = run.rows("flows", FlowRow, policy, request=request.request)
    spans: Sequence[SpanRow] = ()
    shares: Sequence[FlowRow] = ()
    if request.batch is not None:
        spans = run.rows("spans", SpanRow, policy, batch=request.batch)
        shares = run.rows("flows", FlowRow, policy, batch=request.batch, stage=Stage.COLLECTIVE.value)
    spent = time_spent(request, spans_by_batch(spans))
    return explain_text.request_story(run.path, policy, request, spent, flows, shares)


def _nearest_ids(flow: str, ids: Iterable[str]) -> tuple[str, ...]:
    alike = heapq.nlargest(_COMPARED_IDS, ids, key=lambda known: _same_beginning(known, flow))
    return tuple(difflib.get_close_matches(flow, alike, n=3, cutoff=0.5))


def _same_beginning(one: str, other: str) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(one), len(other)))


class _Run:
    """Reads rows of a run directory as they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
            self._policies = [str(run["policy"]) for run in summary["runs"]]
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(f"{path}: not a run directory, it has no summary.json of ours") from None

    def chosen(self, policy: str | None) -> list[str]:
        if policy is None:
            return self._policies
        if policy in self._policies:
            return [policy]
        guess = nearest(policy, self._policies)
        hint = f"; did you mean {guess!r}?" if guess else ""
        known = ", ".join(self._policies)
        raise UserError(f"--policy {policy}: {self.path} has no such policy{hint} (it has: {known})")

    def flow_ids(self, policy: str) -> list[str]:
        return [row["id"] for row in self._read("flows", ["id"], {"policy": policy})]

    def request_numbers(self, policy: str) -> tuple[int, ...]:
        rows = self._read("requests", ["request"], {"policy": policy})
        return tuple(sorted(row["request"] for row in rows))

    def rows(self, table: str, row: type[Row], policy: str, **equal: object) -> tuple[Row, ...]:
        """The rows of one policy whose columns have the values in `equal`."""
        columns = [field.name for field in msgspec.structs.fields(row)]
        found = self._read(table, columns, {"policy": policy, **equal})
        try:
            return msgspec.convert(found, tuple[row, ...])  # type: ignore[valid-type]
        except msgspec.ValidationError as error:
            raise UserError(f"{self._file(table)} cannot be read: {error}") from None

    def _read(self, table: str, columns: list[str], equal: dict[str, object]) -> list[dict[str, Any]]:
        """Rows as they are in the file. A column that may be null and is not there is null: the run
        was made before there was one."""
        path = self._file(table)
        try:
            there = set(pq.read_schema(path).names)
            absent = [name for name in dict.fromkeys([*columns, *equal]) if name not in there]
            refused = [name for name in absent if not _may_be_null(table, name)]
            if refused:
                raise UserError(
                    f"{path} has no column {', '.join(refused)}: the run was made by another version of mfs;"
                    " make it again to have it explained"
                )
            if any(name in absent for name in equal):
                return []
            filters = [(name, "=", value) for name, value in equal.items()]
            kept = [name for name in columns if name in there]
            rows: list[dict[str, Any]] = pq.read_table(path, columns=kept, filters=filters).to_pylist()
        except FileNotFoundError:
            raise UserError(f"{self.path} is not the directory of a finished run: no {path.name}") from None
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{path} cannot be read: {error}") from None
        return [dict.fromkeys(absent) | row for row in rows]

    def _file(self, table: str) -> Path:
        return self.path / f"{table}.parquet"


def _may_be_null(table: str, column: str) -> bool:
    schema = SCHEMAS[table]
    return column in schema.names and bool(schema.field(column).nullable)
