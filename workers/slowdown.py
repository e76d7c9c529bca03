"""When compute ends on a rank that is slower for a while, or stands still."""

from collections.abc import Sequence

import msgspec


class Slowdown(msgspec.Struct, frozen=True, kw_only=True):
    """From `from_ns` to `to_ns` of model time (None: to the end of the run), compute takes `factor` times as
    long. With an infinite factor it stands still, and `to_ns` is not None."""

    from_ns: int
    to_ns: int | None
    factor: float


def ends_ns(slowdowns: Sequence[Slowdown], start_ns: int, takes_ns: int) -> int:
    """When compute ends that starts at `start_ns` and takes `takes_ns` at full speed, in model time.

    `slowdowns` are in order of time, and none begins before the one before it has ended. A slowdown counts
    from its first moment to its last, so compute that it meets half done is slower for the other half only.
    """
    now_ns, left_ns = start_ns, float(takes_ns)
    for slow in slowdowns:
        if slow.to_ns is not None and slow.to_ns <= now_ns:
            continue
        before_ns = max(0, slow.from_ns - now_ns)
        if left_ns <= before_ns:
            break
        now_ns, left_ns = now_ns + before_ns, left_ns - before_ns
        if slow.to_ns is None:
            return now_ns + round(left_ns * slow.factor)
        done_ns = (slow.to_ns - now_ns) / slow.factor
        if left_ns <= done_ns:
            return now_ns + round(left_ns * slow.factor)
        now_ns, left_ns = slow.to_ns, left_ns - done_ns
    return now_ns + round(left_ns)
