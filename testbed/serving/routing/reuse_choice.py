"""Whether a request fetches a cached prefix that its replica lacks, or computes it again."""

from collections.abc import Sequence

import msgspec

from testbed.job import Job, ReuseRule
from testbed.serving.cache.assignment import Assigned
from testbed.serving.plans.batch_time import BatchTimes
from testbed.serving.routing.estimates import exposed_s1_ns
from testbed.serving.routing.traffic_ahead import TrafficAhead


class ReuseChoice:
    """Chooses by `job.serving.reuse`, for one request of a batch after the other.

    `CHEAPER` compares when the batch would end, on idle links but for S1. Let c be the compute and
    collectives of what is in the batch already and of the request, and S1 the time of the busiest port for
    the S1 of the batch and for all S1 and S3 that is still to come there:

        fetch      c + S1 - (L - 1) / L min(S1, c)     with the prefix fetched
        recompute  the same                            with the prefix computed: a larger c, less S1

    A tie is fetched. Requests that wait behind the batch do not count, although a longer batch delays them.
    """

    def __init__(self, job: Job, times: BatchTimes, traffic: TrafficAhead) -> None:
        self._rule = job.serving.reuse
        self._layers = job.model.layers
        self._times = times
        self._traffic = traffic

    def choose(self, unit: str, fetched: Assigned, computed: Assigned, batch: Sequence[Assigned]) -> Assigned:
        """`fetched` or `computed`, for a request that joins the requests of `batch` on `unit`."""
        if self._rule is ReuseRule.RECOMPUTE:
            return computed
        fetch_ns, compute_ns = (self._prefill_ns(unit, [*batch, item]) for item in (fetched, computed))
        return msgspec.structs.replace(
            fetched if fetch_ns <= compute_ns else computed,
            fetch_estimate_ns=round(fetch_ns),
            recompute_estimate_ns=round(compute_ns),
        )

    def _prefill_ns(self, unit: str, items: Sequence[Assigned]) -> float:
        compute_ns = self._times.ns(unit, items)
        return compute_ns + exposed_s1_ns(self._traffic.s1_ns(unit, items), compute_ns, self._layers)
