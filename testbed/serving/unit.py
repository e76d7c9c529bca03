"""A prefill unit as the serving system keeps it, and how far requests have got."""

import enum
from collections import deque
from collections.abc import Mapping

from testbed.job import Request
from testbed.serving.cache.assignment import Assigned, cacheable_blocks, reusable_blocks
from testbed.serving.cache.prefix_index import PrefixIndex
from workers.plan import BatchPlan


class Phase(enum.Enum):
    """How far a request has got: waiting for a batch, in one, waiting for its first token, past it."""

    QUEUED = "queued"
    RUNNING = "running"
    PREFILLED = "prefilled"
    DONE = "done"


class Unit:
    """A prefill unit: its queue, the batches it runs, and the new tokens it has yet to compute.

    `expected_tokens` are these tokens by request id. `paused` is the batch among `running` that has paused,
    with the layer it goes on with. For a router that asks for costs, `expected` says how requests of the
    queue were expected to run when they arrived.
    `to_come` are the prefixes that its caches will have had once its requests are through. Each of its
    `replicas` has room for `cache_blocks` blocks (None: no limit).
    """

    def __init__(self, replicas: int, cache_blocks: int | None = None) -> None:
        self.queue: deque[Request] = deque()
        self.running: dict[str, BatchPlan] = {}
        self.paused: tuple[BatchPlan, int] | None = None
        self.batches = 0
        self.expected_tokens: dict[int, int] = {}
        self.expected: dict[int, Assigned] = {}
        self.computed_tokens = [0] * replicas
        self.to_come = PrefixIndex(1, None if cache_blocks is None else cache_blocks * replicas)

    def promised_tokens(self, fixed: Mapping[int, Assigned]) -> list[int]:
        """New tokens by replica, with those of waiting requests whose replica is `fixed`, by request."""
        promised = list(self.computed_tokens)
        for waiting in self.queue:
            item = fixed.get(waiting.id)
            if item is not None:
                promised[item.replica] += item.new_tokens
        return promised

    def take_in(self, request: Request, new_tokens: int, *, once: bool) -> None:
        """Queue an arriving request that leaves `new_tokens` to compute by what caches have now.

        With `once`, a prefix that waits here counts once (decision 0029): it will be cached by its turn.
        """
        if once:
            ahead = len(self.to_come.lookup(reusable_blocks(request)))
            new_tokens = min(new_tokens, request.prompt_tokens - ahead * request.block_tokens)
        self.expected_tokens[request.id] = new_tokens
        self.to_come.insert(cacheable_blocks(request), 0)
        self.queue.append(request)

    def queued_tokens(self) -> int:
        return sum(self.expected_tokens.values())
