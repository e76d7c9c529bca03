"""Takes the requests of a batch and gives them replicas, where each depends on the other."""

from collections.abc import Callable, Sequence

from testbed.job import Request
from testbed.serving.batching.forming import Part, take_batch
from testbed.serving.cache.assignment import Assigned


def take_assigned(
    candidates: Sequence[Request],
    *,
    new_tokens: Callable[[Request], int],
    most: int,
    split: bool,
    assign: Callable[[Sequence[Part]], list[Assigned]],
) -> list[Assigned]:
    """As many `candidates` as fit into `most` new tokens (`forming.take_batch`), as `assign` assigns them.

    How much a request recomputes depends on its replica, which depends on who shares the batch. If it is more
    than `new_tokens` says, fewer requests may fit, and the batch is taken again with what is known by then.
    """
    counted: dict[int, int] = {}

    def count(request: Request) -> int:
        if request.id not in counted:
            counted[request.id] = new_tokens(request)
        return counted[request.id]

    while True:
        assigned = assign(take_batch(candidates, count, most, split=split))
        left = {item.request.id: item.request.prompt_tokens - item.prefix_tokens for item in assigned}
        more = {request: tokens for request, tokens in left.items() if tokens > counted[request]}
        if not more:
            return assigned
        counted |= more
