"""What ranks did, by batch."""

from collections import defaultdict
from collections.abc import Iterable

from testbed.record import SpanRow


def spans_by_batch(spans: Iterable[SpanRow]) -> dict[str, list[SpanRow]]:
    """The spans that belong to a batch, by batch."""
    grouped: dict[str, list[SpanRow]] = defaultdict(list)
    for span in spans:
        if span.batch is not None:
            grouped[span.batch].append(span)
    return grouped
