"""Faults in a scenario: what becomes of them, and which are refused by which message."""

import json

import pytest

from experiments.errors import UserError
from experiments.resolve.jobs import resolve
from experiments.resolve.losses import check_elastic
from experiments.scenario.reading import load_scenario, override
from testbed.faults import (
    ControllerRestart,
    DecodeLoss,
    Fault,
    LinkFault,
    RankPause,
    Straggler,
    SwitchRestart,
    UnitLoss,
)

S = 1_000_000_000


def faults(*rows: dict[str, object], scenario: str = "quickstart") -> tuple[Fault, ...]:
    text = f"faults={json.dumps(rows)}"
    few = ["fabric=sim", "workload.requests=2"] if scenario == "quickstart" else ["fabric=sim"]
    return resolve(load_scenario(scenario, [*map(override, few), override(text)])).jobs[0].faults


def refusal(*rows: dict[str, object], scenario: str = "quickstart") -> str:
    with pytest.raises(UserError) as caught:
        faults(*rows, scenario=scenario)
    return str(caught.value)


def test_the_name_of_a_link_means_both_directions_and_that_of_a_port_one() -> None:
    found = faults(
        {"kind": "link-down", "link": "s1-h3", "from_s": 1, "to_s": 1.5},
        {"kind": "link-rate", "link": "h3->s1", "share": 0.5, "from_s": 2},
    )
    assert found == (
        LinkFault(link="s1-h3", ports=("s1->h3", "h3->s1"), share=0.0, from_ns=S, to_ns=3 * S // 2),
        LinkFault(link="h3->s1", ports=("h3->s1",), share=0.5, from_ns=2 * S, to_ns=None),
    )
    assert [fault.words for fault in found] == ["link s1-h3 down", "link h3->s1 at 0.5 of its rate"]


def test_a_fault_without_times_lasts_throughout_the_run() -> None:
    assert faults({"kind": "straggler", "rank": 2, "factor": 1.5}) == (
        Straggler(rank=2, factor=1.5, from_ns=0, to_ns=None),
    )


def test_a_pause_has_a_beginning_and_an_end() -> None:
    (pause,) = faults({"kind": "pause", "rank": 3, "from_s": 1, "to_s": 1.25})
    assert pause == RankPause(rank=3, from_ns=S, to_ns=5 * S // 4)
    assert pause.words == "rank 3 paused"


def test_a_pause_of_a_straggler_is_refused() -> None:
    told = refusal(
        {"kind": "straggler", "rank": 3, "factor": 2}, {"kind": "pause", "rank": 3, "from_s": 1, "to_s": 2}
    )
    assert "faults[1]: rank 3 paused at the same time as faults[0], rank 3 computing 2 times as long" in told


def test_a_switch_that_restarts_takes_all_its_links_with_it() -> None:
    (found,) = faults(
        {"kind": "switch-restart", "switch": "s1", "from_s": 1, "to_s": 2}, scenario="two-flows"
    )
    assert isinstance(found, SwitchRestart)
    assert set(found.ports) == {f"{a}->{b}" for h in ("h1", "h2", "h3") for a, b in ((h, "s1"), ("s1", h))}
    assert (found.share, found.words) == (0.0, "switch s1 restarting")


def test_the_controller_restarts_once_at_a_time() -> None:
    first: dict[str, object] = {"kind": "controller-restart", "from_s": 1, "to_s": 2}
    (found,) = faults(first)
    assert found == ControllerRestart(from_ns=S, to_ns=2 * S)
    assert found.words == "the controller restarting"
    assert "at the same time as faults[0]" in refusal(first, first | {"from_s": 1.5})


def test_faults_do_not_change_the_requests_of_a_load() -> None:
    """A load is a share of what the cluster can do without its faults."""

    def arrivals(*settings: str) -> list[int]:
        texts = ["fabric=sim", "workload.load=0.7", "workload.requests=8", *settings]
        job = resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]
        return [request.arrival_ns for request in job.requests]

    assert arrivals("faults=[{kind: straggler, rank: 0, factor: 4}]") == arrivals()


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"kind": "link-up", "link": "h1-s1"}, "faults[0].kind: 'link-up' is not one of link-down, "),
        ({"kind": "link-down"}, "faults[0].link: a fault of kind link-down needs it"),
        ({"kind": "link-rate", "link": "h1-s1"}, "faults[0].share: a fault of kind link-rate needs it"),
        (
            {"kind": "link-down", "link": "h1-s1", "share": 0.5},
            "faults[0].share: a fault of kind link-down has no share",
        ),
        ({"kind": "link-rate", "link": "h1-s1", "share": 0}, "faults[0].share: 0 is out of range"),
        ({"kind": "straggler", "rank": 1, "factor": 1}, "faults[0].factor: 1 is out of range"),
        (
            {"kind": "straggler", "rank": 1, "factor": 2, "from_s": 3, "to_s": 2},
            "faults[0].to_s: 2 is not after from_s (3)",
        ),
        ({"kind": "straggler", "rank": 1, "factor": 2, "at_s": 3}, "unknown key 'faults[0].at_s'"),
        (
            {"kind": "link-down", "link": "h1-s2"},
            "faults[0]: link: there is no link 'h1-s2' in this network; did you mean 'h1-s1'?",
        ),
        (
            {"kind": "link-down", "link": "h1->s1"},
            "faults[0]: link: 'h1->s1' is one direction; a link goes down as a whole: 'h1-s1'",
        ),
        (
            {"kind": "switch-restart", "switch": "s2", "to_s": 1},
            "faults[0]: switch: there is no switch 's2' in this network; did you mean 's1'?",
        ),
        ({"kind": "controller-restart"}, "faults[0].to_s: a fault of kind controller-restart needs it"),
        ({"kind": "pause", "rank": 1}, "faults[0].to_s: a fault of kind pause needs it"),
        (
            {"kind": "straggler", "rank": 10, "factor": 2},
            "faults[0]: rank: there is no rank 10; they are 0 to 9",
        ),
    ],
)
def test_a_fault_that_cannot_be_is_refused(row: dict[str, object], told: str) -> None:
    assert told in refusal(row)


def test_two_faults_of_one_port_at_the_same_time_are_refused() -> None:
    down = {"kind": "link-down", "link": "h1-s1", "from_s": 1, "to_s": 2}
    slow = {"kind": "link-rate", "link": "h1->s1", "share": 0.5}
    told = "faults[1]: link h1->s1 at 0.5 of its rate at the same time as faults[0], link h1-s1 down"
    assert told in refusal(down, slow | {"from_s": 1.9})
    assert told in refusal(down, slow | {"from_s": 0, "to_s": 1.1})
    assert len(faults(down, slow | {"from_s": 2}, slow | {"from_s": 0, "to_s": 1})) == 2 + 1


def test_a_straggler_needs_a_workload_that_computes() -> None:
    told = "faults[0]: rank: nothing is computed in a workload of flows"
    assert told in refusal({"kind": "straggler", "rank": 0, "factor": 2}, scenario="two-flows")


# --- losses -----------------------------------------------------------------------------------------

LOST: dict[str, object] = {"kind": "unit-lost", "unit": "p1", "from_s": 1}
GONE: dict[str, object] = {"kind": "decode-lost", "worker": 0, "from_s": 1, "to_s": 2}


def test_units_and_decode_workers_have_the_names_of_tables() -> None:
    found = faults(LOST, GONE)
    assert found == (UnitLoss(unit="p1", from_ns=S, to_ns=None), DecodeLoss(worker=0, from_ns=S, to_ns=2 * S))
    assert [fault.words for fault in found] == ["unit p1 lost", "decode worker 0 lost"]


def test_a_loss_of_what_there_is_not_is_refused() -> None:
    assert "unit: there is no unit 'p7' (units: p0, p1)" in refusal(LOST | {"unit": "p7"})
    assert "worker: there is no decode worker 2, only 0 to 1" in refusal(GONE | {"worker": 2})


def test_a_cluster_without_units_or_workers_at_some_time_is_refused() -> None:
    assert "faults: with unit p0 lost, no prefill unit is left" in refusal(
        LOST, LOST | {"unit": "p0", "from_s": 5}
    )
    assert "no decode worker is left" in refusal(GONE, GONE | {"worker": 1, "from_s": 1.5, "to_s": 3})
    assert len(faults(GONE, GONE | {"worker": 1, "from_s": 2, "to_s": 3})) == 2


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("serving.chunk_tokens=512", "serving.chunk_tokens"),
        ("serving.preempt_layers=4", "serving.preempt_layers"),
        ("serving.fetch=queue", "serving.fetch"),
        ("serving.router=kv-aware", "serving.router"),
        ("serving.decode=network-aware", "serving.decode"),
        ("serving.reuse=cheaper", "serving.reuse"),
        ("serving.batches_of=fair", "serving.batches_of"),
        ("serving.decode_batch=8", "serving.decode_batch"),
    ],
)
def test_what_a_loss_would_do_to_it_is_not_modelled(setting: str, key: str) -> None:
    texts = ["fabric=sim", "workload.requests=2", setting, f"faults={json.dumps([GONE])}"]
    with pytest.raises(UserError, match=f": {key}: "):
        resolve(load_scenario("quickstart", [override(text) for text in texts]))


@pytest.mark.parametrize(
    ("scenario", "settings", "told"),
    [
        ("two-flows", [], "workload: single flows"),
        ("quickstart", ["serving.chunk_tokens=512"], "serving.chunk_tokens"),
        ("quickstart", ["serving.decode_background=8"], "serving.decode_background"),
        ("quickstart", ["units.prefill_units=1", "units.decode_ranks=1"], "units: there is one prefill unit"),
        ("real-layers", [], "workers.compute: real layers"),
    ],
)
def test_what_cannot_go_on_without_a_unit_is_not_elastic(
    scenario: str, settings: list[str], told: str
) -> None:
    chosen = load_scenario(scenario, [override(text) for text in ["fabric=cluster", *settings]])
    with pytest.raises(UserError, match=f"--elastic: scenario {scenario}: {told}"):
        check_elastic(chosen, resolve(chosen).jobs[0])


def test_units_of_which_one_is_left_are_elastic() -> None:
    chosen = load_scenario("quickstart", [override("fabric=cluster")])
    check_elastic(chosen, resolve(chosen).jobs[0])
