"""The kinds of spans: what a rank does with its time."""

import enum


class SpanKind(enum.StrEnum):
    """`PAUSED`: the batch waits for another batch. `DECODE_STEP`: the first decode step of a request."""

    S1_WAIT = "s1_wait"
    COMPUTE = "compute"
    COLLECTIVE = "collective"
    PAUSED = "paused"
    DECODE_STEP = "decode"
