"""What `mfs cluster doctor` finds out: what servers have, how their clocks are, and what each pair can do."""

import itertools
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import msgspec

from testbed.cluster.agents import AgentDesk
from testbed.cluster.assignment import Assigned
from testbed.cluster.class_notes import class_notes
from testbed.cluster.clocks import Reading
from testbed.cluster.fidelity import payload_share
from testbed.cluster.inventory import Inventory
from testbed.fabric import RunFailed
from testbed.job import Job
from workers.agent_protocol import Here, PairListening, PairResult, PairSeen, ReceivePair, SendPair

T = TypeVar("T", PairListening, PairResult)

PAIR_S = 1.0
"""Wall seconds for which a pair sends."""

_ANSWER_S = 20.0


class Examined(msgspec.Struct, frozen=True, kw_only=True):
    """By host: what it has and says, and how far its clock is ahead. By pair of hosts: what arrived.

    `nominal_bps` is by pair, too: what the links should carry by the scenario, in payload bits/s; None where
    the MTU is not known. `wrong` says in words what would spoil a run, `notes` what is good to know.
    """

    here: dict[str, Here]
    clocks: dict[str, Reading]
    pairs: dict[tuple[str, str], PairSeen]
    nominal_bps: dict[tuple[str, str], float | None]
    wrong: tuple[str, ...]
    notes: tuple[str, ...] = ()


def examine(
    desk: AgentDesk, job: Job, assigned: Assigned, inventory: Inventory, say: Callable[[str], None]
) -> Examined:
    """Examine the servers of a job, whose agents are there. Pairs send one after the other."""
    agents = {machine.host: f"{machine.host}/0" for machine in assigned.machines.values()}
    said = desk.here()
    here = {host: said[agent] for host, agent in agents.items()}
    say("reading the servers' clocks")
    readings = desk.read_clocks(agents.values())
    clocks = {host: readings[agent] for host, agent in agents.items()}
    addresses = {machine.host: machine.address for machine in assigned.machines.values()}
    pairs: dict[tuple[str, str], PairSeen] = {}
    wrong: list[str] = []
    for number, (a, b) in enumerate(itertools.permutations(agents, 2)):
        say(f"{a} sends to {b}")
        try:
            pairs[a, b] = _pair(
                desk, number, agents[a], agents[b], addresses[a], addresses[b], inventory.dscps or ()
            )
        except RunFailed as failure:
            wrong.append(f"{a} to {b}: {failure}")
    nominal = _nominal(job, assigned, here)
    return Examined(
        here=here,
        clocks=clocks,
        pairs=pairs,
        nominal_bps=nominal,
        wrong=(*wrong, *_faults(inventory, assigned, here, pairs)),
        notes=tuple(class_notes(here)),
    )


def _pair(
    desk: AgentDesk, number: int, sender: str, receiver: str, own: str, address: str, dscps: tuple[int, ...]
) -> PairSeen:
    """Have one agent send to another. Raises `RunFailed` if nothing arrives."""
    desk.ask(receiver, ReceivePair(number=number, address=address, seconds=PAIR_S))
    listening = _answer(desk, number, receiver, PairListening)
    desk.ask(
        sender,
        SendPair(number=number, own=own, address=address, port=listening.port, dscps=dscps, seconds=PAIR_S),
    )
    result = _answer(desk, number, receiver, PairResult)
    assert result.seen is not None
    return result.seen


def _answer(desk: AgentDesk, number: int, agent: str, kind: type[T]) -> T:
    deadline = time.monotonic() + _ANSWER_S
    while time.monotonic() < deadline:
        for answer in desk.answers(number):
            if isinstance(answer, PairResult) and answer.trouble:
                raise RunFailed(answer.trouble)
            if isinstance(answer, kind):
                return answer
        time.sleep(0.02)
    raise RunFailed(f"the agent {agent} has not answered for {_ANSWER_S:.0f} s")


def _nominal(job: Job, assigned: Assigned, here: dict[str, Here]) -> dict[tuple[str, str], float | None]:
    """Payload bits/s of the narrowest link between each two servers."""
    rates = {link.id: job.scale.wire_bps(link.bps) for link in job.topology.links}
    found = {}
    for pair, path in assigned.paths.items():
        a, b = (assigned.machines[server] for server in pair.split(" "))
        mtu = here[a.host].machine.mtus.get(a.nic)
        line_bps = min(rates[f"{src}->{dst}"] for src, dst in itertools.pairwise(path))
        found[a.host, b.host] = None if mtu is None else line_bps * payload_share(mtu)
    return found


def _faults(
    inventory: Inventory,
    assigned: Assigned,
    here: dict[str, Here],
    pairs: dict[tuple[str, str], PairSeen],
) -> Iterator[str]:
    for what, said in (
        ("torch", {host: one.machine.torch for host, one in here.items()}),
        ("Python", {host: one.machine.python for host, one in here.items()}),
    ):
        if len(set(said.values())) > 1:
            told = ", ".join(f"{host} {version}" for host, version in said.items())
            yield f"versions of {what} differ: {told}"
    for machine in assigned.machines.values():
        known = here[machine.host].machine
        if machine.nic not in known.mtus:
            yield f"{machine.host} has no interface {machine.nic}; it has {', '.join(sorted(known.mtus))}"
        if machine.gpus > known.gpus:
            yield f"{machine.host} has {known.gpus} GPUs, and {machine.gpus} according to the inventory"
    for (a, b), seen in pairs.items():
        lost = [dscp for dscp in inventory.dscps or () if dscp not in seen.dscps]
        other = [f"{sent} arrives as {got}" for sent, got in sorted(seen.dscps.items()) if got != sent]
        if lost:
            yield f"{a} to {b}: no datagram arrived with DSCP {', '.join(map(str, lost))}"
        if other:
            yield f"{a} to {b}: DSCP is changed on the way: {', '.join(other)}"
