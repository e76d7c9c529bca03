"""Small jobs for the emulated fabric, and ways to look at their records.

Model units are wire units here, without dilation or scaling: 50 Mb/s are 50 Mb/s on the machine.
"""

import itertools
from collections.abc import Callable

import msgspec

from controller.flow import Stage, Transfer
from experiments.workloads.micro import endpoints
from testbed.fabric import RunProgress
from testbed.fabrics import FABRICS
from testbed.job import (
    Job,
    MicroFlow,
    Placement,
    Request,
    Scale,
    SchedulerOptions,
    ServingOptions,
    WorkerOptions,
)
from testbed.models.gpus import GpuSpeed
from testbed.models.shape import ModelShape
from testbed.placement import Layout, place
from testbed.record import FlowRow, RunRecord
from testbed.topology import Topology, star
from workers.options import ComputeMode, Device

SECOND = 10**9

# A layer of 96 tokens computes for about 20 ms and leaves 98 KB of KV, 26 ms at 30 Mb/s: neither
# compute nor network hides the other.
MOE = ModelShape(
    name="small-moe",
    layers=3,
    hidden=256,
    q_heads=4,
    kv_heads=4,
    head_dim=64,
    ffn=512,
    experts=4,
    top_k=2,
    bytes_per_element=2,
)
DENSE = msgspec.structs.replace(MOE, name="small-dense", experts=0, top_k=0)
_GPU = GpuSpeed(name="slow", peak_flops=2e10, memory_bytes_per_s=1e9, efficiency=0.5)
_BLOCK_TOKENS = 16


def run(job: Job, progress: Callable[[RunProgress], None] = lambda _: None) -> RunRecord:
    return FABRICS["mininet"]().run(job, progress)


# --- micro jobs ---------------------------------------------------------------------------------


def flow(
    id_: str, route: str, size_bytes: float, *, start_s: float, stage: Stage, deadline_s: float | None = None
) -> MicroFlow:
    """`route` is, for instance, `"h1->h3"`."""
    src, dst = (int(server.removeprefix("h")) - 1 for server in route.split("->"))
    return MicroFlow(
        transfer=Transfer(
            id=id_,
            stage=stage,
            src=src,
            dst=dst,
            size_bytes=round(size_bytes),
            deadline_ns=None if deadline_s is None else round(deadline_s * SECOND),
        ),
        start_ns=round(start_s * SECOND),
    )


def micro_job(
    *flows: MicroFlow,
    servers: int,
    mbps: float,
    policy: str = "stage",
    chunk_bytes: int = 16_384,
    recheck_ns: int = 5_000_000,
) -> Job:
    topology = star(servers=servers, nic_bps=round(mbps * 1e6))
    job = _job(topology, endpoints(topology), policy=policy, model=MOE, recheck_ns=recheck_ns)
    workers = msgspec.structs.replace(job.workers, chunk_bytes=chunk_bytes)
    return msgspec.structs.replace(job, flows=flows, workers=workers)


def row(record: RunRecord, flow_id: str) -> FlowRow:
    (found,) = (f for f in record.flows if f.id == flow_id)
    return found


def rate_bps(record: RunRecord, flow_id: str, start_ns: float, end_ns: float) -> float:
    """Rate at which payload of a flow arrived in an interval; linear between two reports."""
    return (
        (_received(record, flow_id, end_ns) - _received(record, flow_id, start_ns))
        * 8e9
        / (end_ns - start_ns)
    )


def _received(record: RunRecord, flow_id: str, time_ns: float) -> float:
    end = row(record, flow_id)
    marks = [(end.permit_ns, 0)]
    marks += sorted((p.time_ns, p.received_bytes) for p in record.progress if p.flow == flow_id)
    marks.append((end.finish_ns, end.size_bytes))
    if time_ns <= marks[0][0]:
        return 0.0
    for (t0, b0), (t1, b1) in itertools.pairwise(marks):
        if time_ns < t1:
            return b0 + (b1 - b0) * (time_ns - t0) / (t1 - t0)
    return end.size_bytes


# --- serving jobs -------------------------------------------------------------------------------


def serving_job(
    topology: Topology,
    *,
    policy: str = "mfs",
    model: ModelShape = MOE,
    ranks_per_server: int | None = None,
    slo_s: float = 1.0,
    decode_tp: int = 1,
) -> Job:
    """Two prefill units of two ranks and a decode worker; three waves of requests.

    Requests go to the units in turn. In the first wave p0 computes prompt A and p1 prompt B. In later waves
    each unit gets a prompt that begins with the other unit's, so it has to fetch that prefix (S1).
    """
    placement = place(
        topology,
        prefill_units=2,
        ranks_per_unit=2,
        decode_ranks=decode_tp,
        decode_tp=decode_tp,
        ranks_per_server=ranks_per_server,
        tp=None,
        ep=None,
        layout=Layout.SPREAD,
        model=model,
    )
    prompt_a, prompt_b = tuple(range(6)), tuple(range(100, 106))
    waves = (
        (0.1, (prompt_a, prompt_b)),
        (1.5, ((*prompt_b, 200, 201), (*prompt_a, 300, 301), (900, 901), (902, 903))),
        (1.6, (prompt_b, prompt_a, (*prompt_b, 200, 205), (*prompt_a, 300, 305))),
    )
    prompts = [(arrival_s, blocks) for arrival_s, wave in waves for blocks in wave]
    requests = tuple(
        Request(
            id=i,
            arrival_ns=round(arrival_s * SECOND),
            prompt_tokens=len(blocks) * _BLOCK_TOKENS + 5,
            output_tokens=1,
            blocks=blocks,
            block_tokens=_BLOCK_TOKENS,
            slo_ns=round(slo_s * SECOND),
        )
        for i, (arrival_s, blocks) in enumerate(prompts)
    )
    job = _job(topology, placement, policy=policy, model=model)
    return msgspec.structs.replace(job, requests=requests)


def _job(
    topology: Topology,
    placement: Placement,
    *,
    policy: str,
    model: ModelShape,
    recheck_ns: int = 5_000_000,
) -> Job:
    return Job(
        scenario="test",
        policy=policy,
        seed=1,
        topology=topology,
        placement=placement,
        scale=Scale(time_dilation=1.0, bytes_scale=1.0),
        model=model,
        gpu=_GPU,
        serving=ServingOptions(router="round-robin", max_batch_tokens=256, decode_choice="round-robin"),
        scheduler=SchedulerOptions(recheck_ns=recheck_ns),
        workers=WorkerOptions(
            device=Device.CPU,
            compute=ComputeMode.TIMED,
            lanes_s1=1,
            lanes_s3=4,
            chunk_bytes=32_768,
            verify_share=1.0,
        ),
    )
