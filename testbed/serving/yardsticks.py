"""What the delays of a machine are measured against: how long the work of a job takes by itself.

A permit that comes a millisecond late says nothing by itself. It matters if a transfer takes ten, and not if
one takes a thousand. The yardsticks follow from the job alone, and not from a run, which the same delays
would have stretched.
"""

from collections.abc import Sequence

import msgspec

from controller.units import NS_PER_S
from testbed.job import Job, MicroFlow, Request
from testbed.serving.plans.steps import step_options
from testbed.serving.slo import IdleCluster, ideal_reuse_tokens

_SHORT = 0.1  # of single flows, a tenth may be shorter than the yardstick


class Yardstick(msgspec.Struct, frozen=True, kw_only=True):
    """A model time: what takes it, in short (for a table) and in full."""

    short: str
    name: str
    seconds: float


class Yardsticks(msgspec.Struct, frozen=True, kw_only=True):
    """Model times of the median request alone, or of single flows on idle links.

    - `transfer`: what a permit delays: the shortest transfer of a layer, or the layer.
    - `compute`: what a late wake-up delays: the compute of a layer; of single flows, the transfer.
    - `whole`: what a single moment delays: the request to its first token, or the median flow.

    None if nothing crosses a link, or nothing computes.
    """

    transfer: Yardstick | None
    compute: Yardstick | None
    whole: Yardstick | None


def yardsticks(job: Job) -> Yardsticks:
    """Return the yardsticks of `job`, which has requests or flows."""
    return _of_flows(job.flows, job) if job.flows else _of_requests(job)


def _of_requests(job: Job) -> Yardsticks:
    median = _median_request(job.requests)
    reused = ideal_reuse_tokens(job.requests)[median.id]
    cluster = IdleCluster(
        placement=job.placement,
        model=job.model,
        gpu=job.gpu,
        topology=job.topology,
        options=step_options(job),
    )
    times = cluster.layer_times(median.prompt_tokens, reused)
    delayed_s = {f"the {stage.value}": seconds for stage, seconds in times.transfers_s.items()}
    if times.whole_s:
        delayed_s["all"] = times.whole_s
    shortest = min(delayed_s, key=delayed_s.__getitem__)
    of_a_layer = "of a layer of the median request alone"
    ttft_s = cluster.unloaded_ttft_ns(median.prompt_tokens, reused) / NS_PER_S
    transfer = compute = None
    if times.transfers_s:
        name = f"{shortest} {of_a_layer}"
        transfer = Yardstick(short="a short transfer", name=name, seconds=delayed_s[shortest])
    if times.compute_s:
        name = f"the compute {of_a_layer}"
        compute = Yardstick(short="a layer's compute", name=name, seconds=times.compute_s)
    whole = Yardstick(short="a lone TTFT", name="the TTFT of the median request alone", seconds=ttft_s)
    return Yardsticks(transfer=transfer, compute=compute, whole=whole)


def _median_request(requests: Sequence[Request]) -> Request:
    ordered = sorted(requests, key=lambda r: (r.unloaded_ns, r.prompt_tokens, r.id))
    return ordered[len(ordered) // 2]


def _of_flows(flows: Sequence[MicroFlow], job: Job) -> Yardsticks:
    alone_s = sorted(filter(None, (_alone_s(flow, job) for flow in flows)))
    if not alone_s:
        return Yardsticks(transfer=None, compute=None, whole=None)
    short = Yardstick(
        short="a short flow", name="a short flow alone (p10)", seconds=alone_s[int(_SHORT * len(alone_s))]
    )
    median = Yardstick(short="a lone flow", name="the median flow alone", seconds=alone_s[len(alone_s) // 2])
    return Yardsticks(transfer=short, compute=short, whole=median)


def _alone_s(flow: MicroFlow, job: Job) -> float:
    """Seconds of a flow on idle links, by its first path; 0 if it crosses none."""
    transfer, node_of = flow.transfer, job.placement.node_of
    src, dst = node_of(transfer.src), node_of(transfer.dst)
    if src == dst:
        return 0.0
    path = job.topology.paths(src, dst)[0]
    return transfer.size_bytes * 8 / min(job.topology.link(port).bps for port in path)
