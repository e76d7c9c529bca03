"""Whether a run with background transfers ends, and in bearable time."""

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from controller.flow import PortId, Stage
from controller.policies.static import StaticOptions
from controller.spec import read_spec
from experiments.errors import UserError
from experiments.resolve.work_demand import demand
from experiments.scenario.scenario import Scenario
from testbed.fabric import FabricName
from testbed.job import Job

MOST_TRANSFERS: Final = 1_000_000
"""The most background transfers of a policy. The simulator carries about 20,000 a second on a core."""


def check_background(scenario: Scenario, job: Job) -> None:
    """Raise `UserError`, naming the key, for background transfers with which a run would hardly ever end."""
    if job.background is None or not job.requests:
        return
    section, count = scenario.workload.background, transfers_expected(job)
    assert section.gbps is not None
    if count > MOST_TRANSFERS:
        least_mb = 1.1 * section.transfer_mb * count / MOST_TRANSFERS  # rounded, and still enough
        raise UserError(
            f"scenario {scenario.name}: workload.background.transfer_mb:"
            f" {section.transfer_mb:g} at workload.background.gbps {section.gbps:g} is about {count:,}"
            f" transfers until the last request is answered, more than {MOST_TRANSFERS:,};"
            f" it takes transfers of {least_mb:.2g} MB"
        )
    if scenario.fabric in (FabricName.MININET, FabricName.CLUSTER) or job.simulation.separate:
        return  # levels there are guaranteed a part of each port; or no stage meets another
    if job.simulation.overheads.level_share > 0:
        return
    over = overloaded_ports(job)
    for policy in scenario.policies if over else ():
        starved = next(_starved(policy, job, over), None)
        if starved is not None:
            stage, port = starved
            asked, line = over[port] / 1e9, job.topology.link(port).bps / 1e9
            raise UserError(
                f"scenario {scenario.name}: policies: {policy!r} puts background transfers before"
                f" {stage.value}, and they would fill port {port} ({asked:.3g} Gb/s of {line:.3g}), so"
                f" {stage.value} would wait for ever and the run would not end; lower"
                f" workload.background.gbps below {section.gbps * line / asked:.3g}, or give them a"
                f" level below {stage.value}"
            )


def starvation_notes(job: Job) -> tuple[str, ...]:
    """Say which port background transfers alone would fill, if any."""
    over = overloaded_ports(job) if job.background is not None and job.requests else {}
    if not over:
        return ()
    port = max(over, key=over.__getitem__)
    return (
        f"background transfers alone would fill port {port}: {over[port] / 1e9:.3g} Gb/s of"
        f" {job.topology.link(port).bps / 1e9:.3g}; a policy that puts them first would keep what"
        " crosses it waiting (workload.background.gbps)",
    )


def transfers_expected(job: Job) -> int:
    """Return how many transfers begin until the last request can have its first token, if nothing is late."""
    assert job.background is not None
    last_ns = max(request.arrival_ns + request.unloaded_ns for request in job.requests)
    return len(job.background.pairs) * (last_ns // job.background.period_ns + 1)


def overloaded_ports(job: Job) -> Mapping[PortId, float]:
    """Return the ports that background transfers would fill, and the bits per second that they ask of each.

    Each pair counts on its first path.
    """
    assert job.background is not None
    pairs, placement = job.background.pairs, job.placement
    asked: Counter[PortId] = Counter()
    each_bps = job.background.asked_bps / len(pairs)
    found: dict[PortId, float] = {}
    for src, dst in pairs:
        for port in job.topology.paths(placement.node_of(src), placement.node_of(dst))[0]:
            asked[port] += 1
    for port, count in asked.items():
        if count * each_bps >= job.topology.link(port).bps:
            found[port] = count * each_bps
    return found


def _starved(policy: str, job: Job, over: Mapping[PortId, float]) -> Iterator[tuple[Stage, PortId]]:
    """Yield the stages that are strictly below background transfers on a port that these fill."""
    options = read_spec(policy, **job.scheduler.defaults()).policy.options
    if not isinstance(options, StaticOptions) or options.level_weights is not None:
        return
    crossed = demand(job, job.requests).ports
    levels = {Stage.KV_REUSE: options.s1, Stage.COLLECTIVE: options.s2, Stage.P2D: options.s3}
    for stage, level in levels.items():
        for port in over:
            if level > options.background and port in crossed.get(stage, ()):
                yield stage, port
