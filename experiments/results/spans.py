"""Spans (what ranks did), by batch."""

from collections import defaultdict
from collections.abc import Iterable

from testbed.record import SpanRow


def spans_by_batch(spans: Iterable[SpanRow]) -> dict[str, list[SpanRow]]:
    """Return the spans of each batch. Spans without a batch are left out."""
    grouped: dict[str, list[SpanRow]] = defaultdict(list)
    for span in spans:
        if span.batch is not None:
            grouped[span.batch].append(span)
    return grouped
