"""`mfs bench sim --against`: the same flow sets through our fluid network and through other simulators.

docs/measured/benchmarks.md says what the tools model, and what the columns mean.
"""

import importlib.util
import json
import math
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from experiments.bench.flow_sets import FlowSet, SetCase, draw
from experiments.bench.own_process import in_own_process
from experiments.bench.replay import Replay, replay_ours
from experiments.errors import UserError
from testbed.fabric import RunFailed

OURS: Final = "ours"
SYSTEM_PYTHON: Final = "/usr/bin/python3"
"""The Python that Debian's package of SimGrid is for."""

ROUNDS: Final = 3
"""How often each tool runs a flow set. The tools take turns, and the run with the median CPU time counts."""

MOST_PACKET_HOPS: Final = 1_000_000
"""The largest flow set for ns.py, in packets times links: about 15 s."""

_SCRIPT: Final = Path(__file__).with_name("simgrid_script.py")


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One way to run a flow set. `most_packet_hops`: it is left out of larger flow sets."""

    name: str
    replay: Callable[[FlowSet], Replay]
    most_packet_hops: float = math.inf


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Relative differences of flow durations from ours, each as a share of our duration."""

    median: float
    p99: float
    largest: float


class ToolRun(msgspec.Struct, frozen=True, kw_only=True):
    """One flow set in one tool. Rates are per second of processor time; an event is a start or an end.

    `active` is how many flows were under way at once, on average from the first start to the last end.
    `our_speed` is how many times as fast as this tool our network was. `difference` is None for ours.
    """

    case: str
    tool: str
    version: str
    flows: int
    wall_s: float
    cpu_s: float
    flows_per_s: float
    events_per_s: float
    active: float
    peak_bytes: int
    our_speed: float
    shared_anew: float | None = None
    difference: Difference | None = None


class LeftOut(msgspec.Struct, frozen=True, kw_only=True):
    """A flow set that a tool did not run."""

    case: str
    tool: str
    why: str


def chosen_tools(names: Sequence[str]) -> list[Tool]:
    """Return our network and the tools of these names.

    Raises `UserError` for an unknown name, and if a tool is not installed.
    """
    for name in names:
        if name not in AGAINST:
            raise UserError(f"--against {name}: there is no such tool (tools: {', '.join(AGAINST)})")
    missing = [told for name in dict.fromkeys(names) if (told := _MISSING[name]())]
    if missing:
        raise UserError("\n".join(missing))
    return [Tool(name=OURS, replay=_ours), *(tool for name in dict.fromkeys(names) for tool in AGAINST[name])]


def compare(
    cases: Sequence[SetCase],
    tools: Sequence[Tool],
    *,
    seed: int,
    rounds: int = ROUNDS,
    on_start: Callable[[str, str], None] = lambda case, tool: None,
) -> Iterator[ToolRun | LeftOut]:
    """Run every flow set in every tool, and yield what each did, by flow set. The first tool is ours.

    Raises `RunFailed` if a tool fails, or does not end every flow.
    """
    for case in cases:
        flow_set = draw(case, seed)
        taking_part = [tool for tool in tools if flow_set.packet_hops <= tool.most_packet_hops]
        replays: dict[str, list[Replay]] = {tool.name: [] for tool in taking_part}
        for _ in range(rounds):
            for tool in taking_part:
                on_start(case.name, tool.name)
                replays[tool.name].append(_checked(tool, case, flow_set))
        medians = {
            name: sorted(runs, key=lambda run: run.cpu_s)[len(runs) // 2] for name, runs in replays.items()
        }
        for tool in tools:
            if tool in taking_part:
                yield _told(case.name, tool.name, flow_set, medians[tool.name], medians[tools[0].name])
            else:
                yield LeftOut(
                    case=case.name,
                    tool=tool.name,
                    why=f"simulates packets, and the links would have to send {flow_set.packet_hops:,} of"
                    f" them (limit: {tool.most_packet_hops:,})",
                )


def difference(flow_set: FlowSet, ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    """Return how far the flows' durations differ; `ours` and `theirs` are their ends in nanoseconds."""
    gaps = sorted(
        abs(there - here) / (here - flow.start_ns)
        for flow, here, there in zip(flow_set.flows, ours, theirs, strict=True)
    )
    return Difference(median=_ranked(gaps, 0.5), p99=_ranked(gaps, 0.99), largest=gaps[-1])


def as_json(told: Sequence[ToolRun | LeftOut], *, seed: int, complete: bool) -> dict[str, Any]:
    return {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "seed": seed,
        "rounds": ROUNDS,
        "complete": complete,
        "runs": [msgspec.to_builtins(one) for one in told if isinstance(one, ToolRun)],
        "left_out": [msgspec.to_builtins(one) for one in told if isinstance(one, LeftOut)],
    }


def _told(case: str, tool: str, flow_set: FlowSet, replay: Replay, ours: Replay) -> ToolRun:
    flows = len(flow_set.flows)
    busy_ns = sum(
        end_ns - flow.start_ns for end_ns, flow in zip(replay.finish_ns, flow_set.flows, strict=True)
    )
    return ToolRun(
        case=case,
        tool=tool,
        version=replay.version,
        flows=flows,
        wall_s=replay.wall_s,
        cpu_s=replay.cpu_s,
        flows_per_s=flows / replay.cpu_s,
        events_per_s=2 * flows / replay.cpu_s,
        active=busy_ns / (max(replay.finish_ns) - flow_set.flows[0].start_ns),
        peak_bytes=replay.peak_bytes,
        our_speed=replay.cpu_s / ours.cpu_s,
        shared_anew=replay.shared_anew,
        difference=None if tool == OURS else difference(flow_set, ours.finish_ns, replay.finish_ns),
    )


def _checked(tool: Tool, case: SetCase, flow_set: FlowSet) -> Replay:
    replay = tool.replay(flow_set)
    ended = sum(
        end_ns > flow.start_ns for end_ns, flow in zip(replay.finish_ns, flow_set.flows, strict=False)
    )
    if not ended == len(flow_set.flows) == len(replay.finish_ns):
        raise RunFailed(f"{tool.name} ended {ended} of the {len(flow_set.flows)} flows of {case.name}")
    return replay


def _ranked(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed."""
    return ordered[math.ceil(share * len(ordered)) - 1]


# --- the tools --------------------------------------------------------------------------------------


# Each replay has a process of its own, for its peak memory.


def _ours(flow_set: FlowSet) -> Replay:
    return in_own_process(OURS, replay_ours, flow_set)


def _ns_py(flow_set: FlowSet) -> Replay:
    from experiments.bench.ns_py import replay_ns_py

    return in_own_process("ns.py", replay_ns_py, flow_set)


def _simgrid(optim: str) -> Callable[[FlowSet], Replay]:
    """SimGrid with `network/optim` of this name."""

    def replay(flow_set: FlowSet) -> Replay:
        asked = json.dumps({**msgspec.to_builtins(flow_set), "optim": optim})
        run = subprocess.run(
            [SYSTEM_PYTHON, "-I", str(_SCRIPT)], input=asked, capture_output=True, text=True, check=False
        )
        if run.returncode:
            raise RunFailed(f"SimGrid ended with {run.returncode}:\n{run.stderr[-2000:]}")
        return msgspec.json.decode(run.stdout, type=Replay)

    return replay


def simgrid_missing() -> str:
    """Return how to install SimGrid, or nothing if it is there."""
    try:
        found = subprocess.run(
            [SYSTEM_PYTHON, "-I", "-c", "import simgrid"], capture_output=True, check=False
        ).returncode
    except OSError:
        found = 1
    return (
        f"--against simgrid: {SYSTEM_PYTHON} has no SimGrid (install it: apt-get install python3-simgrid)"
        if found
        else ""
    )


def ns_py_missing() -> str:
    """Return how to install ns.py, or nothing if it is there."""
    there = all(importlib.util.find_spec(module) for module in ("ns", "simpy"))
    return "" if there else "--against ns.py: not installed (install it: pip install ns.py==0.4.3 simpy)"


AGAINST: Final = {
    "simgrid": (
        Tool(name="SimGrid, lazy", replay=_simgrid("Lazy")),
        Tool(name="SimGrid, full", replay=_simgrid("Full")),
    ),
    "ns.py": (Tool(name="ns.py", replay=_ns_py, most_packet_hops=MOST_PACKET_HOPS),),
}
"""By the name that `--against` takes: `Lazy`, SimGrid's default, recomputes only what a change reaches;
`Full` recomputes everything, with less bookkeeping."""

_MISSING: Final = {"simgrid": simgrid_missing, "ns.py": ns_py_missing}
