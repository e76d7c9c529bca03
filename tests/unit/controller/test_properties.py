"""What must hold for any sequence of events, tried on random sequences."""

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from math import isnan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.flow import RMLQ_LEVELS, Assignment, Batch, BatchRequest, Flow, Level, Stage
from controller.overload import RequestControl
from controller.policies import make_policy, policy_names, policy_options
from controller.policy import Verdict
from controller.scheduler import Scheduler

PORTS = {f"{a}->{b}": 10_000_000_000 for a, b in (("h1", "s1"), ("h2", "s1"), ("s1", "h1"), ("s1", "h2"))}
LAYERS = 4

SPECS = [*policy_names(), "mfs(monotonic=off,layer_boundary=off)", "mfs(levels=2)"]
WITH_LEVELS = [
    name
    for name in policy_names()
    if any(one.startswith("levels=") for one in [one.line for one in policy_options(name)])
]
exactness = pytest.mark.parametrize("exact", [False, True], ids=["levels", "exact"])

Move = tuple[str, int, int]
"""A kind of event and two numbers that say which: of what is active, how much."""

moves = st.lists(
    st.tuples(
        st.sampled_from(["batch", "submit", "submit", "submit", "layer", "progress", "complete", "tick"]),
        st.integers(0, 1000),
        st.integers(0, 1000),
    ),
    max_size=60,
)


@dataclass(slots=True)
class Player:
    """Turns moves into calls that a correct caller could make, and keeps what comes back."""

    core: Scheduler
    now_ns: int = 0
    made: int = 0
    layers: dict[str, int] = field(default_factory=dict)
    requests: dict[str, list[str]] = field(default_factory=dict)
    flows: dict[str, int] = field(default_factory=dict)
    said: list[Assignment] = field(default_factory=list)
    standing: dict[str, Verdict] = field(default_factory=dict)

    def play(self, move: Move) -> None:
        kind, which, much = move
        self.now_ns += which * 10_000
        plays: dict[str, Callable[[int, int], list[Assignment]]] = {
            "batch": self._batch,
            "submit": self._submit,
            "layer": self._layer,
            "progress": self._progress,
            "complete": self._complete,
            "tick": lambda which, much: self.core.tick(self.now_ns),
        }
        self.said += plays[kind](which, much)
        active = set(self.core.view.batches)
        self.layers = {name: layer for name, layer in self.layers.items() if name in active}

    def finish(self) -> None:
        """Let every flow end and every batch compute to its end."""
        for name in list(self.flows):
            self.said += self.core.completion(self.now_ns, name)
        self.end_compute()

    def end_compute(self) -> None:
        """Every batch computes to its end, and departs if it has no flow."""
        for batch in [one.batch for one in self.core.view.batches.values()]:
            self.said += self.core.layer_advanced(self.now_ns, batch.id, LAYERS)

    def _batch(self, which: int, much: int) -> list[Assignment]:
        self.made += 1
        name = f"b{self.made}"
        self.layers[name] = 0
        requests = tuple(
            BatchRequest(
                id=f"{name}.r{i}",
                deadline_ns=self.now_ns + 1_000_000 * (1 + (much * i) % 97),
                tail_ns=which * 1000,
                load=dict.fromkeys(list(PORTS)[i:][:2], much * 100_000),
            )
            for i in range(which % 4)
        )
        self.requests[name] = [request.id for request in requests]
        batch = Batch(id=name, layers=LAYERS, requests=requests, compute_ns=which * 10_000)
        return self.core.batch_started(self.now_ns, batch)

    def _submit(self, which: int, much: int) -> list[Assignment]:
        self.made += 1
        name = f"f{self.made}"
        size = 1 + much * 10_000
        ports = list(PORTS)[which % 4 :][:2]
        batches = [*self.layers, None]
        batch = batches[much % len(batches)]
        requests = [None] if batch is None else [*self.requests[batch], None]
        stage = list(Stage)[which % 3]
        self.flows[name] = size
        flow = Flow(
            id=name,
            stage=stage,
            size_bytes=size,
            load=dict.fromkeys(ports, size),
            batch=batch,
            request=None if stage is Stage.COLLECTIVE else requests[which % len(requests)],
            layer=much % LAYERS,
            coflow=f"{batch}.{much % LAYERS}" if stage is Stage.COLLECTIVE else None,
            downstream_ns=which * 5000,
            deadline_ns=None if which % 7 == 0 else self.now_ns + 100_000 * (which % 50),
        )
        verdict = self.core.standing(stage, batch)
        if verdict is not None:
            self.standing[name] = verdict
        return self.core.submit(self.now_ns, flow)

    def _layer(self, which: int, much: int) -> list[Assignment]:
        if not self.layers:
            return []
        name = list(self.layers)[much % len(self.layers)]
        self.layers[name] = min(LAYERS, self.layers[name] + 1)
        return self.core.layer_advanced(self.now_ns, name, self.layers[name])

    def _progress(self, which: int, much: int) -> list[Assignment]:
        if not self.flows:
            return []
        name = list(self.flows)[which % len(self.flows)]
        return self.core.progress(self.now_ns, name, self.flows[name] * much // 1000)

    def _complete(self, which: int, much: int) -> list[Assignment]:
        if not self.flows:
            return []
        name = list(self.flows)[which % len(self.flows)]
        del self.flows[name]
        return self.core.completion(self.now_ns, name)


def played(
    spec: str, sequence: list[Move], *, exact: bool = False, control: RequestControl | None = None
) -> Player:
    player = Player(Scheduler(make_policy(spec), ports=PORTS, exact=exact, control=control))
    for move in sequence:
        player.play(move)
    return player


def levels_by_flow(said: list[Assignment]) -> dict[str, list[Level]]:
    levels: dict[str, list[Level]] = {}
    for one in said:
        levels.setdefault(one.flow, []).append(one.level)
    return levels


@pytest.mark.parametrize("spec", ["mfs", "mfs(levels=2)", "mfs(s3_levels=0)", "mfs(demand=own,rho=off)"])
@settings(max_examples=60, deadline=None)
@given(sequence=moves)
def test_mfs_only_ever_promotes(spec: str, sequence: list[Move]) -> None:
    for levels in levels_by_flow(played(spec, sequence).said).values():
        assert all(later < earlier for earlier, later in pairwise(levels))


@settings(max_examples=60, deadline=None)
@given(moves)
def test_mfs_only_ever_promotes_on_a_network_with_an_exact_order(sequence: list[Move]) -> None:
    """A new order inside the same level is not a demotion."""
    for levels in levels_by_flow(played("mfs", sequence, exact=True).said).values():
        assert all(later <= earlier for earlier, later in pairwise(levels))


@settings(max_examples=100, deadline=None)
@given(moves)
def test_pruning_only_takes_mfs_flows_to_the_scavenger_and_back(sequence: list[Move]) -> None:
    """A flow that leaves the scavenger, such as when another batch departs, is no lower than before."""
    crowd = [("batch", 3, 900), ("submit", 8, 101), ("submit", 5, 100), ("batch", 7, 700)]
    player = played("mfs", crowd + sequence, control=RequestControl(drop_budget=1.0))
    player.end_compute()
    for levels in levels_by_flow(player.said).values():
        own = [level for level in levels if level is not Level.SCAVENGER]
        assert all(later <= earlier for earlier, later in pairwise(own))


@exactness
@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=20, deadline=None)
@given(sequence=moves)
def test_a_flow_with_a_standing_verdict_gets_it_and_no_other(
    spec: str, exact: bool, sequence: list[Move]
) -> None:
    player = played(spec, sequence, exact=exact)
    said = {one.flow: one for one in reversed(player.said)}
    for flow, verdict in player.standing.items():
        one = said[flow]
        assert Verdict(one.level, one.reason, one.order, one.rate_bps) == verdict
        assert sum(other.flow == flow for other in player.said) == 1


@exactness
@settings(max_examples=60, deadline=None)
@given(sequence=moves)
def test_fair_never_favours(exact: bool, sequence: list[Move]) -> None:
    said = played("fair", sequence, exact=exact).said
    assert {(one.level, one.order, one.rate_bps) for one in said} <= {(Level.P3, 0.0, None)}


@exactness
@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=10, deadline=None)
@given(sequence=moves)
def test_equal_events_give_equal_decisions_and_nothing_is_left_at_the_end(
    spec: str, exact: bool, sequence: list[Move]
) -> None:
    first, second = played(spec, sequence, exact=exact), played(spec, sequence, exact=exact)
    assert first.said == second.said
    assert all(one.reason for one in first.said)
    first.finish()
    assert dict(first.core.view.flows) == {}
    assert dict(first.core.view.batches) == {}
    assert first.core.next_tick_ns() is None


@exactness
@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=10, deadline=None)
@given(sequence=moves)
def test_every_assignment_changes_something_and_can_be_obeyed(
    spec: str, exact: bool, sequence: list[Move]
) -> None:
    """Levels are those a flow can have, rates are above 0; with levels only, there is no order or rate."""
    before: dict[str, tuple[Level, float, int | None]] = {}
    for one in played(spec, sequence, exact=exact).said:
        assert one.level in RMLQ_LEVELS or one.level is Level.SCAVENGER
        assert not isnan(one.order)
        assert one.rate_bps is None or one.rate_bps > 0
        assert exact or (one.order, one.rate_bps) == (0.0, None)
        assert before.get(one.flow) != (one.level, one.order, one.rate_bps)
        before[one.flow] = (one.level, one.order, one.rate_bps)


@pytest.mark.parametrize("count", range(2, 6))
@pytest.mark.parametrize("name", WITH_LEVELS)
@settings(max_examples=10, deadline=None)
@given(sequence=moves)
def test_no_policy_goes_beyond_the_levels_it_is_given(name: str, count: int, sequence: list[Move]) -> None:
    allowed = {*RMLQ_LEVELS[:count], Level.SCAVENGER}
    assert {one.level for one in played(f"{name}(levels={count})", sequence).said} <= allowed


@settings(max_examples=100, deadline=None)
@given(moves)
def test_the_loads_of_all_ports_return_to_zero(sequence: list[Move]) -> None:
    player = played("mfs", sequence)
    player.finish()
    ports = player.core.view.ports
    for port in PORTS:
        assert ports.due(port, 10**18) == (0, 0)
        assert ports.early_layers(port) == {}
        assert ports.rho(port, player.now_ns + 10**12) == 0.0  # 2,000 windows later: exp(-2000)


@settings(max_examples=100, deadline=None)
@given(moves)
def test_what_is_due_on_a_port_is_the_sum_over_its_active_flows(sequence: list[Move]) -> None:
    """The running sums equal a count from scratch. Loads equal sizes, so nothing is rounded."""
    view = played("mfs", sequence).core.view
    due = [
        (active.flow.deadline_ns, active)
        for active in view.flows.values()
        if active.flow.stage is Stage.P2D and active.flow.deadline_ns is not None
    ]
    for port in PORTS:
        for until_ns, _ in due:
            left = [
                active.bytes_left
                for deadline_ns, active in due
                if port in active.flow.load and deadline_ns <= until_ns
            ]
            assert view.ports.due(port, until_ns) == (sum(left), len(left))
