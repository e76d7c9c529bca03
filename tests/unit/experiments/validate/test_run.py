"""`mfs validate`, with a stand-in for the emulated fabric."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from toy_fabric import Mfs

from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from experiments.validate.emulated import Emulated
from experiments.validate.run import compare_with
from testbed.fabric import Requirement, RunProgress
from testbed.fabrics import FABRICS
from testbed.job import Job
from testbed.record import Check, Fidelity, RunRecord
from testbed.simulation.fabric_sim import SimulatedFabric


class Stretched:
    """Stands in for the emulated fabric: the simulated one, with flows that take `flows` times as long, and
    TTFTs multiplied by `ttft`."""

    name = "mininet"

    def __init__(self, *, flows: float = 1.0, ttft: float = 1.0) -> None:
        self._flows = flows
        self._ttft = ttft
        self.runs = 0

    def requirements(self) -> list[Requirement]:
        return []

    def run(self, job: Job, progress: Callable[[RunProgress], None]) -> RunRecord:
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
def emulate(monkeypatch: pytest.MonkeyPatch) -> Callable[[Stretched], None]:
    return lambda fabric: monkeypatch.setitem(FABRICS, "mininet", lambda: fabric)


MICRO = ("two-flows", "--policy", "fair", "--out", "v")


def test_two_fabrics_that_do_the_same_meet_every_goal(
    mfs: Mfs, emulate: Callable[[Stretched], None], tmp_path: Path
) -> None:
    """Two flows of a micro workload: there are no batches to replay."""
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
        (("--emulated", "v"), "v: not a run directory: it has no summary.json"),
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


SERVING = ('policies=["fair"]', "workload.requests=2", "workload.load=2")


def test_requests_are_compared_twice_and_repeated_on_the_same_batches() -> None:
    """TTFTs that are 5 % longer in the emulation: 1 / 1.05 - 1 = -4.8 % with own batches and with the
    emulated ones. A repeated emulation agrees with the first."""
    fabric = Stretched(ttft=1.05)
    scenario = load_scenario("quickstart", [override(text) for text in SERVING])
    job = resolve(scenario.model_copy(update={"fabric": "mininet"})).jobs[0]
    emulated = Emulated(scale=job.scale, rows={"fair": fabric.run(job, lambda _: None)}, unfaithful=())
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
