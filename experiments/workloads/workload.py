"""The requests that every source makes, and measures that describe them."""

import msgspec

from testbed.job import Request


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in order of arrival, without SLOs, and notes on how they were made.

    Requests with the same number in `bursts` arrive together. It is empty if each arrives by itself.
    """

    requests: tuple[Request, ...]
    notes: tuple[str, ...] = ()
    bursts: tuple[int, ...] = ()


def mean_prompt_tokens(requests: tuple[Request, ...]) -> float:
    return sum(request.prompt_tokens for request in requests) / len(requests)


def reuse_share(requests: tuple[Request, ...]) -> float:
    """Return the share of prompt tokens in full blocks that an earlier prompt began with, too.

    This is the hit rate of a single unbounded prefix cache if every prompt is computed before the next one
    arrives: an upper bound for the reuse of a run.
    """
    seen: set[int] = set()
    reused = 0
    for request in requests:
        for block in request.blocks:
            if block not in seen:
                break
            reused += request.block_tokens
        seen.update(request.blocks)
    return reused / sum(request.prompt_tokens for request in requests)
