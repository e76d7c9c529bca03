"""What every source of requests gives, and the measures that describe it."""

import msgspec

from testbed.job import Request


class Workload(msgspec.Struct, frozen=True, kw_only=True):
    """Requests in order of arrival, without SLOs, and what was done to them in words.

    Requests with the same number in `bursts` arrive together; empty where each comes by itself.
    """

    requests: tuple[Request, ...]
    notes: tuple[str, ...] = ()
    bursts: tuple[int, ...] = ()


def mean_prompt_tokens(requests: tuple[Request, ...]) -> float:
    return sum(request.prompt_tokens for request in requests) / len(requests)


def reuse_share(requests: tuple[Request, ...]) -> float:
    """Share of the prompt tokens that stand in full blocks some earlier prompt began with too.

    It is what one unbounded prefix cache would hit if every prompt were computed before the next
    one came: an upper bound for what a run can reuse.
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
