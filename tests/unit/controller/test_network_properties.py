"""What must hold for every policy on the exact network, tried on random traffic."""

from fractions import Fraction

import pytest
from fluid import Arrival, BatchStart, Happening, LayerStart, Outcome, run
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling_world import in_force

from controller.flow import Batch, BatchRequest, Flow, Level, PortId, Stage
from controller.policies import make_policy, policy_names, policy_options
from controller.scheduler import Scheduler

MS = 1_000_000
LINK = "h1->s1"
PORTS = {LINK: 10_000_000_000, "s1->h2": 10_000_000_000, "s1->h3": 4_000_000_000}
PATHS = ((LINK,), (LINK, "s1->h2"), (LINK, "s1->h3"), ("s1->h2",))
PIECE = 250_000  # bytes: 0.2 ms of the link
BATCH = Batch(
    id="b",
    layers=3,
    requests=(
        BatchRequest(id="tight", deadline_ns=12 * MS, tail_ns=1 * MS),
        BatchRequest(id="loose", deadline_ns=60 * MS, tail_ns=1 * MS),
    ),
)
OWN_ONLY = ["mfs(demand=own,rho=off,red=off)", "mfs(mlu=off,rli=off)"]
"""`mfs` with options that make it look at nothing but the flow itself."""

PACE = [BatchStart(0, BATCH), *(LayerStart(3 * layer * MS, "b", layer) for layer in range(1, 4))]

Played = tuple[str, bool]
"""A spec, and whether the network keeps an exact order."""


def variants() -> list[Played]:
    """Every policy on both kinds of network; with two levels, if it has levels; `mfs` without its parts."""
    few = [
        f"{name}(levels=2)"
        for name in policy_names()
        if any(one.name == "levels" for one in policy_options(name))
    ]
    parts = ["mfs(monotonic=off,layer_boundary=off)", *OWN_ONLY]
    both = [(name, exact) for name in policy_names() for exact in (False, True)]
    return both + [(spec, False) for spec in few + parts]


def called(variant: Played) -> str:
    return f"{variant[0]}-{'exact' if variant[1] else 'levels'}"


@st.composite
def flows(draw: st.DrawFn, name: str, paths: tuple[tuple[PortId, ...], ...]) -> Flow:
    stage = draw(st.sampled_from(list(Stage)))
    request = draw(st.sampled_from(BATCH.requests))
    layer = draw(st.integers(0, 2))
    size = PIECE * draw(st.sampled_from([1, 2, 4, 10, 40]))
    return Flow(
        id=name,
        stage=stage,
        size_bytes=size,
        load=dict.fromkeys(draw(st.sampled_from(paths)), size),
        batch="b",
        request=None if stage is Stage.COLLECTIVE else request.id,
        layer=layer,
        coflow=f"S2 of {layer}" if stage is Stage.COLLECTIVE else None,
        deadline_ns=request.deadline_ns if stage is Stage.P2D else None,
        downstream_ns=draw(st.integers(0, 3)) * MS,
    )


@st.composite
def traffic(
    draw: st.DrawFn, paths: tuple[tuple[PortId, ...], ...] = PATHS, starts_ms: tuple[int, ...] = (0, 0, 1, 5)
) -> list[Arrival]:
    """One to seven flows of one batch, some of them at the same instant. All arrive before 9 ms, when the
    batch's compute is over."""
    count = draw(st.integers(1, 7))
    return [
        Arrival(draw(st.sampled_from(starts_ms)) * MS, draw(flows(f"f{number}", paths)))
        for number in range(count)
    ]


def play(variant: Played, arrivals: list[Arrival]) -> Outcome:
    spec, exact = variant
    happenings: list[Happening] = [*PACE, *arrivals]
    return run(Scheduler(make_policy(spec), ports=PORTS, exact=exact), PORTS, happenings)


def alone_ns(size_bytes: int, port: PortId) -> Fraction:
    return Fraction(size_bytes * 8_000_000_000, PORTS[port])


def paced(outcome: Outcome) -> bool:
    return any(said.rate_bps is not None for said in outcome.assignments)


@pytest.mark.parametrize("variant", variants(), ids=called)
@settings(max_examples=8, deadline=None)
@given(arrivals=traffic(paths=((LINK,),)))
def test_a_link_never_rests_while_it_has_flows_to_send(variant: Played, arrivals: list[Arrival]) -> None:
    """In any order, the last flow ends when a first come, first served link is done. If flows are paced
    (Karuna) it may end later, but all flows end."""
    outcome = play(variant, arrivals)
    done = Fraction(0)
    for arrival in sorted(arrivals, key=lambda arrival: arrival.at_ns):
        done = max(done, Fraction(arrival.at_ns)) + alone_ns(arrival.flow.size_bytes, LINK)
    assert outcome.finish_ns.keys() == {arrival.flow.id for arrival in arrivals}
    assert paced(outcome) or max(outcome.finish_ns.values()) == done


@pytest.mark.parametrize("variant", variants(), ids=called)
@settings(max_examples=8, deadline=None)
@given(arrivals=traffic())
def test_no_flow_waits_for_ever(variant: Played, arrivals: list[Arrival]) -> None:
    """The flows that are served first fill one of their ports, so some port is full while there are flows.
    After the last arrival this lasts no longer than all ports need for all their bytes, one by one."""
    outcome = play(variant, arrivals)
    ports_ns = sum(alone_ns(size, port) for arrival in arrivals for port, size in arrival.flow.load.items())
    assert outcome.finish_ns.keys() == {arrival.flow.id for arrival in arrivals}
    last_ns = max(arrival.at_ns for arrival in arrivals)
    assert paced(outcome) or max(outcome.finish_ns.values()) <= last_ns + ports_ns


@pytest.mark.parametrize("exact", [False, True], ids=["levels", "exact"])
@settings(max_examples=40, deadline=None)
@given(arrivals=traffic(paths=((LINK,),), starts_ms=(0,)))
def test_fair_gives_equal_rates_on_a_link(exact: bool, arrivals: list[Arrival]) -> None:
    """All flows start at 0 and have equal rates. When a flow of size s ends, each other one has sent s as
    well, or all it had. So the flow ends after the sum of min(s, other size) over all flows."""
    outcome = play(("fair", exact), arrivals)
    sizes = {arrival.flow.id: arrival.flow.size_bytes for arrival in arrivals}
    assert outcome.finish_ns == {
        name: alone_ns(sum(min(size, other) for other in sizes.values()), LINK)
        for name, size in sizes.items()
    }


BANDS = "a flow is ranked among those submitted before it"
ORDER_MATTERS = {
    ("edf", False): BANDS,
    ("edf-all", False): BANDS,
    ("hermod", False): BANDS,
    ("karuna", False): BANDS + ", if it has no deadline",
    ("llf", False): BANDS,
    ("mfs", False): "MLU counts what is due at the port when the flow is submitted",
    ("mfs", True): "as in levels: it gives no exact order",
    ("reverse", False): BANDS,
    ("sebf", False): "a coflow is kept between the bands of those that were there before it",
    ("sjf", False): BANDS,
}
"""Policies for which the order of submission at one instant may matter, and why.

For all others, level and order depend on the flow alone, or (`fifo`, `aalo`) on its time of submission.
"""


def order_may_matter(variant: Played) -> bool:
    spec, exact = variant
    return spec not in OWN_ONLY and (spec.partition("(")[0], exact) in ORDER_MATTERS


@pytest.mark.parametrize("variant", [one for one in variants() if not order_may_matter(one)], ids=called)
@settings(max_examples=8, deadline=None)
@given(arrivals=traffic(), data=st.data())
def test_the_order_of_what_happens_at_one_instant_does_not_matter(
    variant: Played, arrivals: list[Arrival], data: st.DataObject
) -> None:
    """Submissions of one instant come in any order. Completions do too, as the network reports those of one
    instant in order of submission. A policy for which this cannot hold belongs in `ORDER_MATTERS`."""
    shuffled = data.draw(st.permutations(arrivals))
    assert play(variant, shuffled).finish_ns == play(variant, arrivals).finish_ns


def one_flow(name: str, pieces: int, stage: Stage, request: BatchRequest, **more: str) -> Flow:
    size = pieces * PIECE
    return Flow(
        id=name,
        stage=stage,
        size_bytes=size,
        load={LINK: size},
        batch="b",
        request=request.id,
        layer=0,
        deadline_ns=request.deadline_ns if stage is Stage.P2D else None,
        **more,
    )


def first_levels(variant: Played, flows: list[Flow]) -> dict[str, Level]:
    scheduler = Scheduler(make_policy(variant[0]), ports=PORTS, exact=variant[1])
    scheduler.batch_started(0, BATCH)
    return {flow.id: scheduler.submit(0, flow)[0].level for flow in flows}


@pytest.mark.parametrize("variant", [one for one in ORDER_MATTERS if one[0] != "sebf"], ids=called)
def test_where_the_order_of_submission_may_matter_it_does(variant: Played) -> None:
    """A large flow that is due soon and a small one that is not. Bands know nothing when the first of
    them arrives: it gets the middle level, whichever it is. MLU of the small one, on 10 Gb/s until 60 ms:
    0.25 MB of 75 MB is P5 (0.003), and P2 (0.14) with the 10 MB that are due before it. For `hermod`, which
    looks at neither, the small one is a collective."""
    tight, loose = BATCH.requests
    stage = Stage.KV_REUSE if variant[0] == "karuna" else Stage.P2D
    other = Stage.COLLECTIVE if variant[0] == "hermod" else stage
    large, small = one_flow("large", 40, stage, tight), one_flow("small", 1, other, loose)
    assert first_levels(variant, [large, small]) != first_levels(variant, [small, large])


@pytest.mark.parametrize(("order", "level"), [(("more", "new"), Level.P1), (("new", "more"), Level.P3)])
def test_sebf_keeps_a_new_coflow_behind_one_that_has_not_moved_yet(
    order: tuple[str, str], level: Level
) -> None:
    """Coflow A (2 ms) is the first: P3. One of 8 ms has completed, so anything shorter is P1 from now on.
    `more` joins A, which is ranked anew: P1. `new` (4 ms) comes after A: P1 if A is there already."""
    tight, _ = BATCH.requests
    s2 = Stage.COLLECTIVE
    scheduler = Scheduler(make_policy("sebf"), ports=PORTS)
    scheduler.batch_started(0, BATCH)
    scheduler.submit(0, one_flow("first", 10, s2, tight, coflow="A"))
    scheduler.submit(0, one_flow("gone", 40, s2, tight, coflow="B"))
    scheduler.completion(0, "gone")
    flows = {
        "more": one_flow("more", 1, s2, tight, coflow="A"),
        "new": one_flow("new", 20, s2, tight, coflow="C"),
    }
    for name in order:
        scheduler.submit(MS, flows[name])
    scheduler.tick(MS)
    assert in_force(scheduler, "new") is level
    assert in_force(scheduler, "more") is Level.P1
