"""A serving world small enough to work out by hand.

The tiny mixture of experts (`MOE`), per layer: KV 16 B/token (2 x 2 heads x 2 wide x 2 B); Q, K, V
and output projections 4 matrices of 4 x (2 x 2) = 64 weights, 128 FLOPs/token; gate 4 x 4 weights, 32
FLOPs/token; expert 3 x 4 x 8 = 96 weights, 192 FLOPs/visit; scores 4 x 2 x 2 = 16 FLOPs per key;
hidden state 8 B, so 16 B/token all-to-all. `DENSE` is the same without experts.

The GPU computes 1000 x 0.5 = 500 FLOP/s and reads 1000 B/s; a NIC of 800 bit/s carries 100 B/s.
"""

from collections.abc import Sequence

import msgspec

from testbed.job import Job, Placement, Request, Scale, SchedulerOptions, ServingOptions, WorkerOptions
from testbed.models.gpus import GpuSpeed
from testbed.models.shape import ModelShape
from testbed.placement import ExpertGroups, Layout, place
from testbed.serving.cache.assignment import Assigned
from testbed.serving.plans.build import build_plan
from testbed.serving.plans.steps import PLAIN, StepOptions
from testbed.serving.system import ServingSystem
from testbed.topology import Topology, star
from workers.options import ComputeMode, Device
from workers.plan import BatchPlan, CollectiveKind

MOE = ModelShape(
    name="tiny-moe",
    layers=2,
    hidden=4,
    q_heads=2,
    kv_heads=2,
    head_dim=2,
    ffn=8,
    experts=4,
    top_k=2,
    bytes_per_element=2,
)
DENSE = msgspec.structs.replace(MOE, name="tiny-dense", experts=0, top_k=0)
GPU = GpuSpeed(name="tiny", peak_flops=1000.0, memory_bytes_per_s=1000.0, efficiency=0.5)
BLOCK_TOKENS = 4


def placed(
    *,
    units: int = 2,
    per_unit: int = 2,
    decode: int = 1,
    servers: int = 5,
    tp: int | None = None,
    ep: int | None = None,
    model: ModelShape = MOE,
    layout: Layout = Layout.SPREAD,
    ranks_per_server: int | None = None,
    nic_bps: int = 800,
    sp: int = 1,
    pp: int = 1,
    decode_tp: int = 1,
    sequence: CollectiveKind = CollectiveKind.RING_ATTENTION,
    experts: ExpertGroups = ExpertGroups.CONSECUTIVE,
) -> tuple[Topology, Placement]:
    topology = star(servers=servers, nic_bps=nic_bps)
    placement = place(
        topology,
        prefill_units=units,
        ranks_per_unit=per_unit,
        decode_ranks=decode,
        ranks_per_server=ranks_per_server,
        tp=tp,
        ep=ep,
        layout=layout,
        model=model,
        sp=sp,
        pp=pp,
        decode_tp=decode_tp,
        sequence=sequence,
        experts=experts,
    )
    return topology, placement


def prompt(
    number: int,
    tokens: int,
    blocks: tuple[int, ...] = (),
    *,
    arrival_ns: int = 0,
    slo_ns: int = 1000,
    slo_class: str = "default",
) -> Request:
    return Request(
        id=number,
        arrival_ns=arrival_ns,
        prompt_tokens=tokens,
        output_tokens=1,
        blocks=blocks,
        block_tokens=BLOCK_TOKENS,
        slo_ns=slo_ns,
        slo_class=slo_class,
    )


def planned(
    items: Sequence[Assigned],
    topology: Topology,
    placement: Placement,
    *,
    model: ModelShape = MOE,
    gpu: GpuSpeed = GPU,
    batch: str = "p0.b0",
    formed_ns: int = 0,
    options: StepOptions = PLAIN,
) -> BatchPlan:
    """The plan of a batch of `items` on unit p0, all of which the first decode worker takes."""
    return build_plan(
        batch=batch,
        unit="p0",
        assigned=items,
        decode_ranks={item.request.id: placement.decode_workers[0] for item in items},
        topology=topology,
        placement=placement,
        model=model,
        gpu=gpu,
        formed_ns=formed_ns,
        options=options,
    )


def job(
    topology: Topology,
    placement: Placement,
    *,
    model: ModelShape = MOE,
    router: str = "least-queued-tokens",
    decode_choice: str = "round-robin",
    max_batch_tokens: int = 16,
) -> Job:
    return Job(
        scenario="tiny",
        policy="fair",
        seed=1,
        topology=topology,
        placement=placement,
        scale=Scale(time_dilation=1.0, bytes_scale=1.0),
        model=model,
        gpu=GPU,
        serving=ServingOptions(router=router, max_batch_tokens=max_batch_tokens, decode_choice=decode_choice),
        scheduler=SchedulerOptions(),
        workers=WorkerOptions(
            device=Device.CPU,
            compute=ComputeMode.TIMED,
            lanes_s1=1,
            lanes_s3=1,
            chunk_bytes=65536,
            verify_share=1.0,
        ),
    )


def with_cache(a_job: Job, blocks: int) -> Job:
    """`a_job`, whose replicas keep so many blocks. Its request says how long a block is."""
    serving = msgspec.structs.replace(a_job.serving, cache_tokens=blocks * BLOCK_TOKENS)
    return msgspec.structs.replace(a_job, serving=serving, requests=(prompt(0, 1),))


def batches_of(a_job: Job, *queue: Request, now_ns: int = 1) -> list[list[int]]:
    """The requests of each batch (at most 16 tokens) if `queue` arrives while the unit runs request 99."""
    system = ServingSystem(a_job)
    system.arrive(0, prompt(99, 8))
    for request in queue:
        assert system.arrive(0, request) == []
    formed = []
    plans = system.batch_done(now_ns, "p0.b0")
    while plans:
        (plan,) = plans
        formed.append([request.request for request in plan.requests])
        plans = system.batch_done(now_ns, plan.id)
    return formed
