"""Two runs side by side: what is matched, how errors are reckoned, rankings, goals, and the command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from result_rows import MS, flow_row, request_row
from toy_fabric import Mfs

from controller.flow import Stage
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from experiments.validate.compare import (
    Comparison,
    Pair,
    RunTimes,
    compare,
    goals_of,
    matched_flows,
    rank,
    run_times,
)
from experiments.validate.run import Emulated, compare_with
from testbed.fabric import Progress, Requirement
from testbed.fabrics import FABRICS
from testbed.job import Job
from testbed.record import Check, Fidelity, FlowRow, RunRecord
from testbed.simulation.fabric_sim import SimulatedFabric


def transfer(id: str, took_ms: float, *, size: int = 1000, **changes: Any) -> FlowRow:
    return flow_row(id=id, finish_ns=round(took_ms * MS), size_bytes=size, **changes)


def times(*flows: FlowRow, ttft_ms: float = 100) -> RunTimes:
    return run_times([request_row(ttft_ns=round(ttft_ms * MS))], flows)


# --- what is matched --------------------------------------------------------------------------------


def test_a_transfer_is_known_by_what_it_carries_not_by_its_batch() -> None:
    one = times(transfer("p0.b0.r7.l2.s3.0-8", 10, request=7, layer=2))
    other = times(transfer("p1.b3.r7.l2.s3.0-8", 12, request=7, layer=2))
    assert matched_flows(one, other).errors == pytest.approx([0.2])


def test_a_transfer_that_another_batch_made_larger_is_another_one() -> None:
    one = times(transfer("b0.r7", 10, request=7, layer=2), transfer("lone", 1))
    other = times(transfer("b0.r7", 10, request=7, layer=2, size=2000), transfer("lone", 1))
    [stage] = [s for s in compare(one, other).stages if s.stage == "S3"]
    assert (stage.matched, stage.only_emulated, stage.only_simulated) == (1, 1, 1)


def test_a_collective_lasts_from_its_last_submit_to_its_last_finish() -> None:
    """Members are ready at 1 and 4 ms and through at 9 and 7: 9 - 4 = 5 ms, 3,000 bytes."""
    shares = [
        flow_row(
            id=f"c.{i}",
            stage=Stage.COLLECTIVE,
            coflow="c",
            size_bytes=size,
            submit_ns=ready * MS,
            finish_ns=end * MS,
        )
        for i, (ready, end, size) in enumerate([(1, 9, 1000), (4, 7, 2000)])
    ]
    [collective] = times(*shares).flows.values()
    assert (collective.took_ns, collective.size_bytes) == (5 * MS, 3000)


# --- errors -----------------------------------------------------------------------------------------


def test_errors_are_relative_to_the_emulated_run() -> None:
    """110 for 100, 260 for 200, nothing for nothing, and something for nothing."""
    emulated = times(*(transfer(name, ms) for name, ms in zip("abcd", (100, 200, 0, 0), strict=True)))
    simulated = times(*(transfer(name, ms) for name, ms in zip("abcd", (110, 260, 0, 5), strict=True)))
    matched = matched_flows(emulated, simulated)
    assert matched.errors == pytest.approx([0.1, 0.3, 0.0, np.inf])
    assert matched.within == 0.5


def test_a_comparison_by_hand() -> None:
    """TTFT 100 against 90 ms; three S3 flows of 10, 10 and 40 ms against 9, 12 and 40: of the errors
    -10 %, +20 % and 0 two are within 15 %."""
    emulated = times(transfer("a", 10), transfer("b", 10), transfer("c", 40))
    simulated = times(transfer("a", 9), transfer("b", 12), transfer("c", 40), ttft_ms=90)
    found = compare(emulated, simulated)
    assert found.ttft_mean_s == Pair(0.1, 0.09)
    assert found.ttft_mean_s.error == pytest.approx(-0.1)
    assert found.cct_mean_s == Pair(None, None)
    [stage] = [s for s in found.stages if s.stage == "S3"]
    assert stage.mean_s.error == pytest.approx(61 / 60 - 1)
    assert stage.p50 == pytest.approx(0.0)
    assert (found.matched, found.flows, found.within) == (3, 3, pytest.approx(2 / 3))


def test_runs_without_flows_of_both_say_nothing_of_flows() -> None:
    found = compare(times(transfer("a", 1)), times(transfer("b", 1)))
    assert (found.matched, found.within) == (0, None)


# --- rankings ---------------------------------------------------------------------------------------


def ranked(tie: float = 0.0, relative: bool = False, **values: tuple[float, float]) -> Any:
    pairs = {name: Pair(*both) for name, both in values.items()}
    return rank("TTFT", pairs, smaller_is_better=True, tie=tie, relative=relative)


def test_the_same_order_is_a_tau_of_one() -> None:
    ranking = ranked(a=(1, 10), b=(2, 20), c=(3, 30))
    assert ranking.emulated == ranking.simulated == ("a", "b", "c")
    assert (ranking.tau, ranking.contradicted) == (1.0, ())


def test_a_pair_in_opposite_order_is_named_as_the_emulated_run_has_it() -> None:
    """Of three pairs two agree and one does not: (2 - 1) / 3."""
    ranking = ranked(a=(1, 2), b=(2, 1), c=(3, 3))
    assert ranking.tau == pytest.approx(1 / 3)
    assert ranking.contradicted == (("a", "b"),)


def test_what_is_closer_than_the_noise_is_not_told_apart() -> None:
    """a and b differ by 2 % of 102 on the first only; the second calls them the other way round. Pairs told
    apart: 2 by the first, 3 by the second, both agree on those 2: 2 / sqrt(6)."""
    ranking = ranked(tie=0.03, relative=True, a=(100, 120), b=(102, 100), c=(200, 200))
    assert ranking.contradicted == ()
    assert ranking.tau == pytest.approx(2 / 6**0.5)


def test_nothing_told_apart_has_no_tau() -> None:
    assert ranked(a=(1, 1), b=(1, 2)).tau is None


# --- goals ------------------------------------------------------------------------------------------


def comparison(ttft: float = 1.0, cct: float = 1.0, within: float = 0.95) -> Comparison:
    """Simulated TTFT and CCT over emulated ones, and the share of flows that are right."""
    ones = Pair(1.0, 1.0)
    return Comparison(
        requests=1,
        ttft_mean_s=Pair(1.0, ttft),
        ttft_p50_s=ones,
        ttft_p99_s=ones,
        slo_attainment=ones,
        cct_mean_s=Pair(1.0, cct),
        stages=(),
        flows=1,
        matched=1,
        within=within,
    )


def unmet(free: dict[str, Comparison], **others: Any) -> list[str]:
    said = {"replayed": free, "rankings": (), "unfaithful": (), "mean_error": 0.1, "flow_share": 0.9} | others
    return [f"{goal.name}: {goal.value}" for goal in goals_of(free=free, **said) if not goal.met]


def test_the_worst_policy_decides_whether_a_mean_is_close_enough() -> None:
    assert unmet({"fair": comparison(1.09), "mfs": comparison(0.95)}) == []
    assert unmet({"fair": comparison(1.05), "mfs": comparison(0.88)}) == [
        "mean TTFT within 10%: -12.0% (mfs)"
    ]


def test_flows_and_collectives_are_judged_where_both_ran_the_same_batches() -> None:
    free = {"fair": comparison(cct=0.5, within=0.2)}
    assert unmet(free, replayed={"fair": comparison(within=0.9)}) == []
    assert unmet(free, replayed={"fair": comparison(within=0.8)}) == ["90% of flows within 15%: 80.0% (fair)"]


def test_a_ranking_that_is_contradicted_and_a_run_that_is_not_faithful_are_unmet() -> None:
    ranking = ranked(fair=(1, 2), mfs=(2, 1))
    assert unmet({"fair": comparison()}, rankings=(ranking,), unfaithful=("mfs",)) == [
        "emulated runs are faithful: not mfs",
        "same ranking by TTFT: not fair before mfs",
    ]


# --- the command ------------------------------------------------------------------------------------


class Stretched:
    """In the emulated fabric's place: the simulated one, whose flows take `flows` times as long and whose
    first tokens come `ttft` times as late after the arrival."""

    name = "mininet"

    def __init__(self, *, flows: float = 1.0, ttft: float = 1.0) -> None:
        self._flows = flows
        self._ttft = ttft
        self.runs = 0

    def requirements(self) -> list[Requirement]:
        return []

    def run(self, job: Job, progress: Callable[[Progress], None]) -> RunRecord:
        self.runs += 1
        record = SimulatedFabric().run(job, progress)
        flows = [
            msgspec.structs.replace(
                f, finish_ns=f.submit_ns + round((f.finish_ns - f.submit_ns) * self._flows)
            )
            for f in record.flows
        ]
        requests = tuple(
            msgspec.structs.replace(
                row,
                ttft_ns=round((row.ttft_ns or 0) * self._ttft),
                first_token_ns=row.arrival_ns + round((row.ttft_ns or 0) * self._ttft),
            )
            for row in record.requests
        )
        check = Check(name="rate", value=1.0, bound="", unit="", ok=True, advice="")
        return msgspec.structs.replace(
            record,
            fabric=self.name,
            flows=tuple(flows),
            requests=requests,
            fidelity=Fidelity(faithful=True, checks=(check,)),
        )


@pytest.fixture
def mfs(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Mfs:
    monkeypatch.chdir(tmp_path)
    return Mfs(monkeypatch, capfd)


@pytest.fixture
def emulate(monkeypatch: pytest.MonkeyPatch) -> Callable[[Stretched], None]:
    return lambda fabric: monkeypatch.setitem(FABRICS, "mininet", lambda: fabric)


MICRO = ("two-flows", "--policy", "fair", "--out", "v")


def test_two_fabrics_that_do_the_same_meet_every_goal(
    mfs: Mfs, emulate: Callable[[Stretched], None], tmp_path: Path
) -> None:
    """Two flows of a micro workload; without batches there is nothing to follow."""
    emulate(Stretched())
    assert mfs("validate", *MICRO, "--json") == 0
    result = json.loads(mfs.out)
    assert result["met"] is True
    [fair] = result["policies"]
    assert (fair["replayed"], fair["not_replayed"]) == (None, None)
    assert (fair["free"]["ideal"]["matched"], fair["free"]["ideal"]["within"]) == (2, 1.0)
    page = (tmp_path / "v" / "report.html").read_text(encoding="utf-8")
    assert "All goals are met." in page
    assert page.count("<svg") == 2


def test_flows_that_take_longer_are_told_and_end_with_one(
    mfs: Mfs, emulate: Callable[[Stretched], None]
) -> None:
    """A fifth longer in the emulation: simulated / emulated - 1 = 1 / 1.2 - 1, off by 16.7 %."""
    emulate(Stretched(flows=1.2))
    assert mfs("validate", *MICRO) == 1
    assert "NOT met: 90% of flows within 15%: 0.0% (fair)" in mfs.out


def test_an_emulated_run_is_read_again_without_emulating(
    mfs: Mfs, emulate: Callable[[Stretched], None]
) -> None:
    fabric = Stretched()
    emulate(fabric)
    assert mfs("validate", *MICRO) == 0
    assert mfs("validate", "--emulated", "v/emulated", "--out", "w") == 0
    assert fabric.runs == 1


def test_a_run_of_other_work_is_refused(mfs: Mfs, emulate: Callable[[Stretched], None]) -> None:
    emulate(Stretched())
    assert mfs("validate", *MICRO) == 0
    changed = Path("v/emulated/scenario.yaml")
    text = changed.read_text(encoding="utf-8")
    changed.write_text(text.replace("id: deliver", "id: other"), encoding="utf-8")
    assert mfs("validate", "--emulated", "v/emulated") == 2
    assert "its scenario now has other flows: emulate it again" in mfs.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either a SCENARIO or --emulated DIR"),
        (("quickstart", "--emulated", "v"), "give either a SCENARIO or --emulated DIR"),
        (("--emulated", "v", "--seed", "2"), "--set and --seed cannot change it"),
        (("--emulated", "v"), "v: not a run directory, it has no summary.json"),
        (("quickstart", "--calibration", "none.json", "--calibrate"), "either --calibration or --calibrate"),
    ],
)
def test_what_cannot_be_done_is_refused(mfs: Mfs, arguments: tuple[str, ...], message: str) -> None:
    assert mfs("validate", *arguments) == 2
    assert message in mfs.err


def test_a_simulated_run_is_not_taken_for_an_emulated_one(mfs: Mfs) -> None:
    assert mfs("run", "two-flows", "--policy", "fair", "--fabric", "sim", "--out", "r") == 0
    assert mfs("validate", "--emulated", "r", "--out", "v") == 2
    assert "a run of the fabric 'sim'" in mfs.err


# --- serving ----------------------------------------------------------------------------------------

SERVING = ('policies=["fair"]', "workload.requests=2", "workload.load=2")


def test_requests_are_compared_twice_and_repeated_on_the_same_batches() -> None:
    """A TTFT that is 5 % longer in the emulation: 1 / 1.05 - 1 = -4.8 % with own batches and with the
    emulated ones. Once more, the emulation agrees with itself."""
    fabric = Stretched(ttft=1.05)
    scenario = load_scenario("quickstart", [override(text) for text in SERVING])
    job = resolve(scenario.model_copy(update={"fabric": "mininet"})).jobs[0]
    emulated = Emulated(
        scenario=scenario, scale=job.scale, rows={"fair": fabric.run(job, lambda _: None)}, unfaithful=()
    )
    result, flows = compare_with(
        emulated,
        scenario,
        simulator=SimulatedFabric(),
        repeat=fabric.run,
        progress=lambda policy, state: None,
        command="",
    )
    assert result.met
    [fair] = result.policies
    assert fair.not_replayed is None
    for simulated in (fair.free, fair.replayed):
        assert simulated is not None
        assert simulated.ideal.ttft_mean_s.error == pytest.approx(1 / 1.05 - 1, abs=1e-6)
        assert (simulated.ideal.matched, simulated.ideal.within) == (simulated.ideal.flows, 1.0)
    assert fair.repeated is not None
    assert fair.repeated.ttft_mean_s.error == 0
    assert list(flows["fair"]) == ["own batches", "same batches", "emulated once more"]


def test_resolving_for_either_fabric_gives_the_same_requests() -> None:
    def requests(fabric: str) -> Any:
        return resolve(load_scenario("quickstart", [override(f"fabric={fabric}")])).jobs[0].requests

    assert requests("sim") == requests("mininet")
