"""All that a run recorded about a request: the rows of which its story and its timeline are made."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import msgspec

from controller.flow import Decision, Stage
from experiments.results.levels import decisions_by_flow
from experiments.results.requests import batches_of
from experiments.results.spans import spans_by_batch
from experiments.results.ttft_parts import TimeSpent, time_spent
from testbed.record import FlowRow, RequestRow, SpanRow

Row = TypeVar("Row", bound=msgspec.Struct)


class Rows(Protocol):
    """The tables of one policy of a run."""

    def rows(self, row: type[Row], **among: Collection[Any]) -> Sequence[Row]:
        """Return the rows that have, in each column given, one of the values given for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLife:
    """A request, where its TTFT went (None without a first token), its own `flows` (S1 and S3), the `shares`
    (S2) of all its batches, and the `spans` in which ranks worked on these."""

    request: RequestRow
    spent: TimeSpent | None
    flows: tuple[FlowRow, ...]
    shares: tuple[FlowRow, ...]
    spans: tuple[SpanRow, ...]

    @property
    def last_shares(self) -> tuple[FlowRow, ...]:
        """The shares of the batch that ended its prefill."""
        return tuple(share for share in self.shares if share.batch == self.request.batch)


def lives(tables: Rows, requests: Sequence[RequestRow]) -> list[RequestLife]:
    """Return the lives of `requests`, in their order. Each table is read once."""
    batches = {batch for row in requests for batch in batches_of(row)}
    flows = tables.rows(FlowRow, request=[row.request for row in requests])
    shares = tables.rows(FlowRow, batch=batches, stage=[Stage.COLLECTIVE.value]) if batches else ()
    spans = spans_by_batch(tables.rows(SpanRow, batch=batches)) if batches else {}
    return [
        RequestLife(
            request=row,
            spent=time_spent(row, spans),
            flows=tuple(flow for flow in flows if flow.request == row.request),
            shares=tuple(share for share in shares if share.batch in batches_of(row)),
            spans=tuple(span for batch in batches_of(row) for span in spans.get(batch, ())),
        )
        for row in requests
    ]


def decisions_on(tables: Rows, told: Sequence[RequestLife]) -> Mapping[str, Sequence[Decision]]:
    """Return the decisions on all flows of these lives, by flow and in order of time."""
    ids = {flow.id for life in told for flow in (*life.flows, *life.shares)}
    return decisions_by_flow(tables.rows(Decision, flow=ids)) if ids else {}
