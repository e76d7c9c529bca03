"""Forming a prefill batch from a queue: first come, first served, up to a token budget."""

from collections.abc import Callable, Sequence

from testbed.job import Request


def take_batch(
    queue: Sequence[Request], new_tokens: Callable[[Request], int], max_batch_tokens: int
) -> list[Request]:
    """The longest run from the head of `queue` whose new tokens fit into `max_batch_tokens`.

    Only tokens to compute count; reused ones cost no compute. The order is never changed to fill a
    batch up, so a request that does not fit ends it. A head that is larger than the whole budget
    forms a batch by itself, otherwise it would wait for ever.
    """
    batch: list[Request] = []
    budget = max_batch_tokens
    for request in queue:
        budget -= new_tokens(request)
        if batch and budget < 0:
            break
        batch.append(request)
    return batch
