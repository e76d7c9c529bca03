"""What ranks did, by kind and by batch."""

import enum
from collections import defaultdict
from collections.abc import Iterable

from testbed.record import SpanRow


class SpanKind(enum.StrEnum):
    """The values of `SpanRow.kind`, as the workers report them."""

    S1_WAIT = "s1_wait"
    COMPUTE = "compute"
    COLLECTIVE = "collective"
    PAUSED = "paused"
    DECODE_STEP = "decode"


def spans_by_batch(spans: Iterable[SpanRow]) -> dict[str, list[SpanRow]]:
    """The spans that belong to a batch, by batch."""
    grouped: dict[str, list[SpanRow]] = defaultdict(list)
    for span in spans:
        if span.batch is not None:
            grouped[span.batch].append(span)
    return grouped
