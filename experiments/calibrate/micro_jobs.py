"""The micro experiments of a calibration, as jobs in the units of the machine.

A model second is a wall second and a model byte is a byte on the wire, so records need no conversion. Sizes
are given as the time they take on a link of `link_bps`, so that measured times are in the same range on
fast and on slow links.
"""

import enum
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from controller.flow import Stage, Transfer
from controller.units import NS_PER_S
from experiments.resolve.jobs import resolve
from experiments.scenario.scenario import Scenario
from testbed.fabric import FabricName
from testbed.job import Job, MicroFlow, Request
from workers.plan import BatchPlan, Collective, CollectiveKind, Compute, LayerPlan, RequestPlan

MEMBERS = (2, 4, 8)
"""Sizes of a process group that can be calibrated with."""

PAUSE_S = 0.03
"""Pause between measurements: queues drain, and ports can pass a burst again."""

BARRIER_BYTES = 1000
"""Size of a barrier, to each peer. One before every measured collective makes all members begin within the
time of a permit."""

TINY_BYTES = (1000, 2000, 4000)
"""Sizes within the burst of a port: such a transfer takes as long as if it had no bytes."""

TRANSFER_S = (0.02, 0.04, 0.08, 0.16)
COLLECTIVE_S = (0.012, 0.025, 0.05, 0.1)
INCAST_S = (0.02, 0.06)
HIGH_S, LOW_S = 0.4, 0.1
TRANSFER_REPEATS, INCAST_REPEATS, LEVEL_REPEATS, BATCHES = 8, 5, 6, 12

_FOREVER_NS = 10**12


class Experiment(enum.StrEnum):
    """The runs of a calibration."""

    TRANSFERS = "transfers"
    COLLECTIVES = "collectives"
    LEVEL_CHANGES = "level changes"


class TransferProbe(enum.StrEnum):
    """What a transfer measures. Its flow is named `PROBE.N`, or `PROBE.N.SENDER` in an incast."""

    ALONE = "one"
    INCAST = "incast"
    HIGH = "high"
    LOW = "low"


class CollectiveProbe(enum.StrEnum):
    """What a collective measures. Its label is `PROBE.N` for N bytes from a member, or `barrier`."""

    BARRIER = "barrier"
    ALL_TO_ALL = "all-to-all"
    ALL_REDUCE = "all-reduce"


def transfer_job(link_mbps: float, senders: int) -> Job:
    """Return a job of single transfers, `senders` to one server at once, and pairs of which one yields.

    One yields because the policy `stage` puts S1 above S3. Flows are named after their `TransferProbe`.
    """
    job = _job(link_mbps, "stage", {"topology": {"servers": senders + 1}, "workload": _NO_FLOWS})
    flows = tuple(
        MicroFlow(
            transfer=Transfer(id=name, stage=stage, src=src, dst=dst, size_bytes=size),
            start_ns=round(start_s * NS_PER_S),
        )
        for name, stage, src, dst, size, start_s in _transfers(link_mbps * 1e6, senders)
    )
    return msgspec.structs.replace(job, flows=flows)


_NO_FLOWS: Final[Mapping[str, object]] = {
    "kind": "flows",
    "flows": [{"id": "none", "src": "h1", "dst": "h2", "bytes": 1}],
}
"""A micro workload needs at least one flow; the flows of the job replace this one."""


def _transfers(link_bps: float, senders: int) -> Iterator[tuple[str, Stage, int, int, int, float]]:
    """Yield name, stage, source, destination, bytes and start (in seconds) of each transfer."""
    now_s, number = 0.5, 0
    for _ in range(TRANSFER_REPEATS):
        for size in (*TINY_BYTES, *(_bytes(link_bps, seconds) for seconds in TRANSFER_S)):
            yield f"{TransferProbe.ALONE}.{number}", Stage.P2D, 0, 1, size, now_s
            now_s += 1.1 * size * 8 / link_bps + PAUSE_S
            number += 1
    for _ in range(INCAST_REPEATS):
        for seconds in INCAST_S:
            for sender in range(senders):
                size = _bytes(link_bps, seconds)
                yield f"{TransferProbe.INCAST}.{number}.{sender}", Stage.P2D, sender + 1, 0, size, now_s
            now_s += 1.2 * senders * seconds + PAUSE_S
            number += 1
    for _ in range(LEVEL_REPEATS):
        yield f"{TransferProbe.HIGH}.{number}", Stage.KV_REUSE, 0, 1, _bytes(link_bps, HIGH_S), now_s
        yield f"{TransferProbe.LOW}.{number}", Stage.P2D, 0, 1, _bytes(link_bps, LOW_S), now_s
        now_s += 1.2 * (HIGH_S + LOW_S) + PAUSE_S
        number += 1


def collective_job(link_mbps: float, members: int, policy: str) -> Job:
    """Return a job of batches of collectives on idle links, each after a barrier and a pause.

    A layer measures one collective, labelled after its `CollectiveProbe`. Under `sjf` barriers and
    collectives are on different levels, so every permit waits for a rule change; under `fair` none does.
    """
    job = _job(
        link_mbps,
        policy,
        {
            "topology": {"servers": members + 1},
            "units": {"prefill_units": 1, "ranks_per_unit": members, "decode_ranks": 1, "ep": members},
            "workload": {"requests": 1},
        },
    )
    requests = tuple(
        Request(
            id=number,
            arrival_ns=0,
            prompt_tokens=1,
            output_tokens=1,
            blocks=(),
            block_tokens=1,
            slo_ns=_FOREVER_NS,
            unloaded_ns=NS_PER_S,
        )
        for number in range(BATCHES)
    )
    plans = tuple(_plan(job, request.id, link_mbps * 1e6, members) for request in requests)
    return msgspec.structs.replace(job, requests=requests, plans=plans)


def _plan(job: Job, request: int, link_bps: float, members: int) -> BatchPlan:
    unit, ranks = next(iter(job.placement.units.items()))
    group = next(name for name, of in job.placement.groups.items() if of == ranks)
    batch = f"{unit}.b{request}"
    decode = job.placement.decode[0]

    def all_to_all(name: str, each: int) -> Collective:
        sizes = tuple(tuple(0 if i == j else each for j in range(members)) for i in range(members))
        return Collective(id=name, group=group, kind=CollectiveKind.ALL_TO_ALL, sizes=sizes, label=name)

    def measured(layer: int, step: Collective) -> LayerPlan:
        barrier = all_to_all(CollectiveProbe.BARRIER.value, BARRIER_BYTES)
        steps = (
            _pause(members),
            msgspec.structs.replace(barrier, id=f"{batch}.l{layer}.{barrier.label}.{group}"),
            _pause(members),
            msgspec.structs.replace(step, id=f"{batch}.l{layer}.{step.label}.{group}"),
        )
        return LayerPlan(index=layer, wait=(), steps=steps, post=())

    collectives: list[Collective] = []
    for seconds in COLLECTIVE_S:
        each = _bytes(link_bps, seconds) // (members - 1)
        collectives.append(all_to_all(f"{CollectiveProbe.ALL_TO_ALL}.{each * (members - 1)}", each))
        # A member of the ring sends 2 (p - 1) / p of the vector, whose parts are whole 64-bit numbers.
        vector = _bytes(link_bps, seconds) // (2 * (members - 1)) // 8 * 8 * members
        label = f"{CollectiveProbe.ALL_REDUCE}.{vector // members * 2 * (members - 1)}"
        collectives.append(
            Collective(id=label, group=group, kind=CollectiveKind.ALL_REDUCE, sizes=((vector,),), label=label)
        )
    layers = [measured(layer, step) for layer, step in enumerate(collectives)]
    last = Transfer(
        id=f"{batch}.r{request}.l{len(layers)}.s3.{ranks[0]}-{decode}",
        stage=Stage.P2D,
        src=ranks[0],
        dst=decode,
        size_bytes=BARRIER_BYTES,
        batch=batch,
        request=request,
        layer=len(layers),
        deadline_ns=_FOREVER_NS,
    )
    layers.append(LayerPlan(index=len(layers), wait=(), steps=(_pause(members),), post=(last,)))
    return BatchPlan(
        id=batch,
        unit=unit,
        ranks=ranks,
        requests=(
            RequestPlan(
                request=request,
                replica=ranks[:1],
                decode_ranks=(decode,),
                new_tokens=1,
                local_tokens=0,
                remote_tokens=0,
                p2d_flows=(1,),
                decode_step_s=PAUSE_S,
                deadline_ns=_FOREVER_NS,
            ),
        ),
        layers=tuple(layers),
        compute_s=PAUSE_S * len(layers),
        formed_ns=0,
    )


def _pause(members: int) -> Compute:
    return Compute(label="pause", seconds=(PAUSE_S,) * members, flops=(0.0,) * members)


def _bytes(link_bps: float, seconds: float) -> int:
    return round(link_bps * seconds / 8)


def _job(link_mbps: float, policy: str, keys: Mapping[str, Mapping[str, object]]) -> Job:
    topology = {"kind": "star", "nic_gbps": link_mbps / 1000, **keys["topology"]}
    scenario = Scenario.model_validate(
        {
            "name": "calibrate",
            "fabric": FabricName.MININET,
            "policies": (policy,),
            "scale": {"time_dilation": 1.0, "bytes_scale": 1.0},
            **keys,
            "topology": topology,
        }
    )
    return resolve(scenario).jobs[0]
