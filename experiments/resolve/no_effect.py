"""Keys of a scenario that are set, and change nothing in it.

They are told instead of refused, because the cells of a sweep share keys, and not all need each of them.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from controller.parts.ordered import OrderedOptions
from controller.spec import Spec, read_spec
from experiments.resolve.calibration import adds_overheads
from experiments.scenario.keys import key_of, section_of
from experiments.scenario.scenario import Scenario
from experiments.scenario.serving import FetchStart
from experiments.scenario.simulation import SimulatedOrder
from experiments.scenario.workload import Arrivals, WorkloadKind
from testbed.fabric import FabricName
from testbed.job import Job, ReuseRule
from testbed.models.sizes import is_moe
from testbed.serving.slo import ideal_reuse_tokens
from testbed.topology import TopologyKind

_SERVING = ("model", "gpu", "units", "serving", "slo")
_REQUESTS = ("background", "requests", "rate", "load", "arrivals", "spread_ticks", "class")
_OF_A_TRACE = ("skip", "time_scale")

_REUSE = (
    "serving.reuse",
    "serving.fetch",
    "serving.fetch_ahead",
    "serving.cache_tokens",
    "serving.cache_gib",
)

_ON_MACHINES = (FabricName.MININET, FabricName.CLUSTER)

_OPTION_OF = {"recheck_ms": "recheck_ns"}
"""Keys of `scheduler` whose option of a policy has another name."""


def without_effect(scenario: Scenario, job: Job) -> tuple[str, ...]:
    """Return a line for each reason: the keys that differ from their defaults in vain, and why."""
    changed = list(_changed(scenario))
    found = []
    for keys, reason in _rules(scenario, job):
        vain = [key for key in changed if any(key == one or key.startswith(f"{one}.") for one in keys)]
        if vain:
            found.append(f"{', '.join(vain)}: no effect, {reason}")
    return (*found, *_policy_options(scenario, job), *_classes(scenario, job))


def _changed(section: BaseModel, prefix: str = "") -> Iterator[str]:
    """Yield the full names of the keys that differ from their defaults."""
    for name, field in type(section).model_fields.items():
        key, value = prefix + key_of(name, field), getattr(section, name)
        if section_of(field) is not None:
            yield from _changed(value, f"{key}.")
        elif value != field.default and value is not None:  # null: taken back, as a load by a rate
            yield key


def _rules(scenario: Scenario, job: Job) -> Iterator[tuple[Sequence[str], str]]:
    """Yield keys that have no effect in this scenario, if they are set, and the reason."""
    topology, workload = scenario.topology, scenario.workload
    yield [f"topology.{key}" for key in topology.without_meaning], f"in a {topology.kind} topology"
    if scenario.fabric == FabricName.MININET:
        yield ["simulation"], "on the emulated fabric"
        if scenario.scale.time_dilation is not None:
            yield ["scale.wall_s", "scale.most_wall_s"], "scale.time_dilation is given"
        if scenario.scale.bytes_scale is not None:
            yield ["scale.link_mbps"], "scale.bytes_scale is given"
    elif scenario.fabric == FabricName.CLUSTER:
        yield ["simulation"], "on real servers"
        yield ["scale.wall_s", "scale.link_mbps"], "on real servers, whose links and time are as they are"
    else:
        if not adds_overheads(scenario.simulation):
            # Not its other keys: scenarios for both fabrics set them.
            in_vain = [f"scale.{key}" for key in ("wall_s", "most_wall_s", "link_mbps", "rehearse")]
            yield in_vain, "the simulated fabric runs in model time and bytes"
        in_vain = ["workers.chunk_kib", "workers.device", "workers.verify_share"]
        yield in_vain, "the simulated fabric moves no real bytes"
        if not workload.is_micro:
            yield ["workers.compute"], "ranks of the simulated fabric compute nothing"
        if topology.kind is TopologyKind.STAR and job.topology.shape.nics_of_a_gpu == 1:
            yield ["simulation.paths"], "in a star there is one path"
    if workload.is_micro:
        in_vain = [*_REQUESTS, *(_OF_A_TRACE if workload.kind is WorkloadKind.FLOWS else ())]
        keys = [*_SERVING, "workers.compute", *(f"workload.{key}" for key in in_vain)]
        yield keys, f"kind {workload.kind} has no requests and no serving system"
        return
    if job.background is None:
        in_vain = ["workload.background.transfer_mb", "workload.background.pairs"]
        yield in_vain, "there are no background transfers (workload.background.gbps)"
    if workload.path is None:
        yield ["workload.skip", "workload.spread_ticks"], "the requests are generated, not read from a trace"
    elif workload.arrivals is not Arrivals.TRACE:
        yield ["workload.spread_ticks"], "random arrivals replace those of the trace"
    multiples = [scenario.slo.multiple, *(one.multiple for one in scenario.slo.classes.values())]
    if not any(multiples):
        yield ["slo.reference"], "no SLO is a multiple of the unloaded TTFT"
    yield from _serving_rules(scenario, job)


def _serving_rules(scenario: Scenario, job: Job) -> Iterator[tuple[Sequence[str], str]]:
    model, placement, serving = job.model, job.placement, scenario.serving
    if max(Counter(rank.server for rank in placement.ranks).values()) == 1:
        yield ["units.layout"], "each rank has a server of its own"
    if len(placement.units) == 1:
        yield ["serving.router"], "there is one prefill unit"
    if len(placement.decode_workers) == 1:
        yield ["serving.decode"], "there is one decode worker"
    if all(shape.sp == 1 for shape in placement.shapes.values()):
        yield ["units.sequence"], "no sequence is split (units.sp)"
    if all(shape.tp == 1 for shape in placement.shapes.values()):
        yield ["serving.all_reduce"], "there is no tensor parallelism (units.tp)"
        if is_moe(model):
            yield ["units.expert_groups"], "there is no tensor parallelism (units.tp)"
    if not is_moe(model):
        in_vain = ["units.expert_skew", "units.expert_groups", "serving.decode_background"]
        yield in_vain, f"{model.name} has no experts"
    if serving.preempt_layers is not None and serving.preempt_layers >= model.layers:
        yield ["serving.preempt_layers"], f"{model.name} has {model.layers} layers"
    limited = serving.cache_tokens is not None or serving.cache_gib is not None
    asked = limited or serving.fetch is FetchStart.QUEUE or serving.fetch_ahead is not None
    asked = asked or serving.reuse is not ReuseRule.FETCH
    if asked and not any(ideal_reuse_tokens(job.requests).values()):
        yield _REUSE, "no prompt begins with a full block of an earlier one"
    if sum(map(len, job.placement.replicas.values())) == 1:
        yield ["serving.reuse", "serving.fetch", "serving.fetch_ahead"], "there is one replica"
    elif serving.reuse is ReuseRule.RECOMPUTE:
        yield ["serving.fetch_ahead"], "nothing is fetched (serving.reuse)"


def _policy_options(scenario: Scenario, job: Job) -> Iterator[str]:
    specs = [read_spec(policy, **job.scheduler.defaults()) for policy in scenario.policies]
    for key in _changed(scenario.scheduler):
        option = _OPTION_OF.get(key, key)
        if not any(hasattr(spec.policy.options, option) for spec in specs):
            yield f"scheduler.{key}: no effect, none of the policies has this option"
    reads = any(spec.policy.reads_progress or spec.control for spec in specs)
    if scenario.fabric not in _ON_MACHINES and not reads and "progress_ms" in _changed(scenario.simulation):
        yield "simulation.progress_ms: no effect, none of the policies reads the progress of flows"
    exact = scenario.simulation.order is SimulatedOrder.EXACT and scenario.fabric not in _ON_MACHINES
    if exact and any(_changed_levels(spec) for spec in specs):
        names = ", ".join(spec.policy.name for spec in specs if _changed_levels(spec))
        yield f"levels of {names}: no effect, in exact order (simulation.order)"
    controlled = [policy for policy, spec in zip(scenario.policies, specs, strict=True) if spec.control]
    if controlled and scenario.workload.is_micro:
        yield f"{', '.join(controlled)}: request control has no effect, there are no requests"


def _changed_levels(spec: Spec) -> bool:
    options: Any = spec.policy.options
    return isinstance(options, OrderedOptions) and options.levels != type(options)().levels


def _classes(scenario: Scenario, job: Job) -> Iterator[str]:
    """Yield the SLO classes that no request has: probably a slip in a name."""
    there = Counter(request.slo_class for request in job.requests)
    vain = [name for name in scenario.slo.classes if name not in there]
    if vain and there:
        has = ", ".join(f"{name} {count}" for name, count in there.most_common())
        told = ", ".join(f"slo.classes.{name}" for name in vain)
        yield f"{told}: no effect, no request is of that class (there are: {has})"
