"""`mfs compare` on runs and sweeps: the differences, and what it refuses."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from record_factory import RESOURCES, serving_record, unfaithful
from toy_fabric import Mfs

from experiments.compare.runs import run_differences
from experiments.compare.sides import sides_of
from experiments.results.writing import write_run
from testbed.job import Scale
from testbed.record import RunRecord


def write(out: Path, *records: RunRecord, scale: float = 1.0, seed: int = 1, yaml: str = "") -> Path:
    write_run(
        out,
        scenario="s",
        fabric="sim",
        seed=seed,
        scale=Scale(time_dilation=1, bytes_scale=scale),
        resolved_yaml=yaml,
        notes=[],
        records=records,
        placement_text=[],
        resources=RESOURCES,
    )
    return out


def later(record: RunRecord, by_ns: int, policy: str) -> RunRecord:
    """The same run, in which every first token comes `by_ns` later."""
    rows = [
        row
        if row.ttft_ns is None or row.first_token_ns is None
        else msgspec.structs.replace(
            row, ttft_ns=row.ttft_ns + by_ns, first_token_ns=row.first_token_ns + by_ns
        )
        for row in record.requests
    ]
    return msgspec.structs.replace(record, requests=rows, policy=policy)


def longer_prompts(record: RunRecord) -> RunRecord:
    rows = [msgspec.structs.replace(row, prompt_tokens=row.prompt_tokens + 1) for row in record.requests]
    return msgspec.structs.replace(record, requests=rows)


def at_half_the_rate(record: RunRecord) -> RunRecord:
    rows = [msgspec.structs.replace(row, arrival_ns=2 * row.arrival_ns) for row in record.requests]
    return msgspec.structs.replace(record, requests=rows)


FAIR = serving_record("fair", requests=40)
MS = 1_000_000


def test_requests_are_compared_one_by_one(tmp_path: Path) -> None:
    """Each is exactly 3 ms later, however much they differ themselves. The failed one does not count."""
    (found,) = run_differences(sides_of([write(tmp_path / "a", FAIR, later(FAIR, 3 * MS, "slow"))]))
    assert (found.side, found.against, found.requests, found.alone) == ("slow", "fair", 40, 0)
    assert found.ttft_s is not None
    assert (found.ttft_s.mean, found.ttft_s.low, found.ttft_s.high) == pytest.approx((0.003,) * 3)
    assert found.ttft_s.count == 39


def test_the_table_has_the_reference_and_the_differences(mfs: Mfs, tmp_path: Path) -> None:
    run = write(tmp_path / "a", FAIR, later(FAIR, 3 * MS, "slow"))
    assert mfs("compare", str(run)) == 0
    assert re.search(r"slow +40 .*\+3\.00 ms", mfs.out)
    assert mfs("compare", str(run), "--against", "slow") == 0
    assert re.search(r"fair +40 .*-3\.00 ms", mfs.out)
    assert mfs("compare", str(run), "--json") == 0
    (found,) = json.loads(mfs.out)
    assert found["ttft_s"]["mean"] == pytest.approx(0.003)


@pytest.mark.parametrize(
    ("other", "scale", "reason"),
    [
        (serving_record("mfs", requests=38), 1.0, "measures 40 requests"),
        (longer_prompts(later(FAIR, 0, "mfs")), 1.0, "is another one"),
        (at_half_the_rate(later(FAIR, 0, "mfs")), 1.0, "workload.rate is the same on all"),
        (later(FAIR, 0, "mfs"), 0.5, "different scales"),
        (msgspec.structs.replace(later(FAIR, 0, "mfs"), fidelity=unfaithful()), 1.0, "mfs is not faithful"),
    ],
)
def test_what_would_mislead_is_refused_unless_told_to(
    mfs: Mfs, tmp_path: Path, other: RunRecord, scale: float, reason: str
) -> None:
    paths = [str(write(tmp_path / "a", FAIR)), str(write(tmp_path / "b", other, scale=scale))]
    assert mfs("compare", *paths) == 2
    assert reason in mfs.err
    assert mfs("compare", *paths, "--anyway") == 0
    assert reason in mfs.out


def test_a_refusal_gives_all_reasons_if_they_are_few(mfs: Mfs, tmp_path: Path) -> None:
    other = msgspec.structs.replace(later(FAIR, 0, "mfs"), fidelity=unfaithful())
    paths = [str(write(tmp_path / "a", FAIR)), str(write(tmp_path / "b", other, scale=0.5))]
    assert mfs("compare", *paths) == 2
    assert "not faithful" in mfs.err
    assert "different scales" in mfs.err
    assert "more like these" not in mfs.err


def test_runs_at_other_rates_are_told_how_to_arrive_alike(mfs: Mfs, tmp_path: Path) -> None:
    """40 requests arrive in 1.73 s, and in 3.46 s: 39 gaps make 22.5 and 11.3 a second."""
    paths = [str(write(tmp_path / "a", FAIR)), str(write(tmp_path / "b", at_half_the_rate(FAIR)))]
    assert mfs("compare", *paths) == 2
    assert "arrive at 22.5/s in fair (a) and at 11.3/s in fair (b): workload.load" in mfs.err


def test_sweeps_at_other_rates_are_told_so(mfs: Mfs, tmp_path: Path) -> None:
    a = sweep(tmp_path / "a", [("fair", 0.4, 1, 1.0)])
    b = sweep(tmp_path / "b", [("mfs", 0.4, 1, 1.0)], rps=7.25)
    assert mfs("compare", a, b) == 2
    assert "7.25 and 0.4 requests/s arrived: workload.load is a share" in mfs.err


def test_sweeps_with_other_slos_are_told_so(mfs: Mfs, tmp_path: Path) -> None:
    a = sweep(tmp_path / "a", [("fair", 0.4, 1, 1.0)], slo_s=0.5)
    b = sweep(tmp_path / "b", [("mfs", 0.4, 1, 1.0)], slo_s=0.75)
    assert mfs("compare", a, b) == 2
    assert "the mean SLO is 750 ms and 500 ms: slo.multiple is of the unloaded TTFT on each" in mfs.err
    assert mfs("compare", a, b, "--anyway") == 0


def test_runs_of_several_seeds_are_replicates(mfs: Mfs, tmp_path: Path) -> None:
    """2 ms later in one run and 4 ms in the other: 3 ms on average, +- t(0.975, 1) of 1 ms: 12.706 ms."""
    paths = []
    for seed, by in ((1, 2), (2, 4)):
        record = serving_record("fair", requests=20, seed=seed)
        paths.append(str(write(tmp_path / str(seed), record, later(record, by * MS, "slow"), seed=seed)))
    assert mfs("compare", *paths, "--replicates", "--json") == 0
    found = {one["measure"]: one for one in json.loads(mfs.out)}
    ttft = found["ttft_mean_s"]["difference"]
    assert (ttft["mean"], ttft["count"]) == (pytest.approx(0.003), 2)
    assert ttft["high"] == pytest.approx(0.003 + 0.012706, abs=1e-6)


def test_runs_of_the_same_requests_are_no_replicates(mfs: Mfs, tmp_path: Path) -> None:
    """Their differences are alike because the requests are, so the interval would say nothing."""
    paths = [str(write(tmp_path / name, FAIR, later(FAIR, MS, "slow"))) for name in "ab"]
    assert mfs("compare", *paths, "--replicates") == 2
    assert "have the same requests, of seed 1: no two replicates" in mfs.err
    assert mfs("compare", *paths, "--replicates", "--anyway") == 0
    assert "no two replicates" in mfs.out


def test_windows_of_one_seed_are_replicates(mfs: Mfs, tmp_path: Path) -> None:
    paths = [
        str(write(tmp_path / str(skip), FAIR, later(FAIR, MS, "slow"), yaml=f"workload: {{skip: {skip}}}"))
        for skip in (0, 48)
    ]
    assert mfs("compare", *paths, "--replicates") == 0


def test_runs_of_different_scenarios_are_no_replicates(mfs: Mfs, tmp_path: Path) -> None:
    scenarios = {
        1: "{name: a, policies: [fair], topology: {nic_gbps: 50.0, leaves: 2}}",
        2: "{name: b, policies: [fair, slow], topology: {nic_gbps: 25.0, leaves: 2}}",
    }
    paths = [
        str(write(tmp_path / str(seed), FAIR, later(FAIR, MS, "slow"), seed=seed, yaml=yaml))
        for seed, yaml in scenarios.items()
    ]
    assert mfs("compare", *paths, "--replicates") == 2
    assert "ran different scenarios: topology.nic_gbps 50.0 and 25.0;" in mfs.err


def test_a_sweep_can_be_compared_with_any_of_its_policies(mfs: Mfs, tmp_path: Path) -> None:
    out = tmp_path / "sweep"
    settings = ("--over", "seed=1:2", "--set", "workload.requests=6")
    mfs("sweep", "quickstart", *settings, "--policy", "fair", "--policy", "mfs", "--out", str(out))
    assert mfs("compare", str(out), "--against", "mfs", "--json") == 0
    found = json.loads(mfs.out)
    assert {(one["side"], one["against"]) for one in found} == {("fair", "mfs")}
    first = json.loads((out / "sweep.json").read_text())["differences"]
    (theirs,) = (one["mean"] for one in first if one["measure"] == "ttft_mean_s")
    (ours,) = (one["difference"]["mean"] for one in found if one["measure"] == "ttft_mean_s")
    assert ours == pytest.approx(-theirs)


def sweep(
    out: Path,
    rows: list[tuple[str, float, int, float]],
    *,
    window: bool = False,
    rps: float | None = None,
    slo_s: float = 1.0,
) -> str:
    """A sweep over loads and seeds, or windows. Rows have policy, load, replicate and mean TTFT in s.

    Without `rps`, as many requests arrive in a second as the load says.
    """
    cells = [
        {"policy": policy, "workload.load": load, "seed": 1 if window else number}
        | ({"window": number} if window else {})
        | {
            "error": None,
            "faithful": True,
            "requests": 9,
            "arrival_rps": rps or load,
            "slo_mean_s": slo_s,
            "slo_attainment": 0.5,
        }
        | {"ttft_mean_s": ttft, "ttft_p99_s": None, "cct_mean_s": None, "coflow_mean_s": None}
        for policy, load, number, ttft in rows
    ]
    over = {"workload.load": [0.4], "window" if window else "seed": [1]}
    out.mkdir(parents=True)
    (out / "sweep.json").write_text(json.dumps({"over": over, "cells": cells}))
    return str(out)


def test_what_nothing_can_be_paired_with_is_named(mfs: Mfs, tmp_path: Path) -> None:
    """The seeds of b are no windows of a, and a load of 0.8 is only in c."""
    a = sweep(tmp_path / "a", [("fair", 0.4, 0, 1.0), ("mfs", 0.4, 0, 1.5)], window=True)
    b = sweep(tmp_path / "b", [("fair", 0.4, 1, 2.0)])
    c = sweep(tmp_path / "c", [("fair", 0.4, 0, 1.0), ("fair", 0.8, 0, 1.0)], window=True)
    assert mfs("compare", a, b, c) == 0
    told = " ".join(mfs.out.split())
    assert "fair (b) is left out: no replicate in common with fair (a) for the same values" in told
    assert "fair (c) is left out at workload.load=0.8: no replicate in common with fair (a)" in told
    assert "mfs (a) is left out" not in told


def test_sweeps_of_one_name_are_told_apart(mfs: Mfs, tmp_path: Path) -> None:
    """Both are called s. Their differences from the first fair are 0.5 and 2 s: neither hides the other."""
    a = sweep(tmp_path / "a" / "s", [("fair", 0.4, 1, 1.0), ("mfs", 0.4, 1, 1.5)])
    b = sweep(tmp_path / "b" / "s", [("mfs", 0.4, 1, 3.0)])
    assert mfs("compare", a, b, "--json") == 0
    found = {
        one["side"]: one["difference"]["mean"] for one in json.loads(mfs.out) if "ttft" in one["measure"]
    }
    assert found == {f"mfs ({a})": 0.5, f"mfs ({b})": 2.0}


def test_a_directory_is_not_compared_with_itself(mfs: Mfs, tmp_path: Path) -> None:
    run = write(tmp_path / "run", FAIR, later(FAIR, 3 * MS, "slow"))
    again = str(tmp_path / "run" / ".." / "run")
    for option in ((), ("--replicates",)):
        assert mfs("compare", str(run), again, *option) == 2
        assert "named twice" in mfs.err


@pytest.mark.parametrize("command", ["compare", "plot", "report"])
def test_what_has_not_finished_is_told_with_how_to_go_on(mfs: Mfs, tmp_path: Path, command: str) -> None:
    run, begun = tmp_path / "run", tmp_path / "begun"
    (run / "unfinished").mkdir(parents=True)
    begun.mkdir()
    (begun / "plan.json").write_text("{}")
    for path, what in ((run, "this run"), (begun, "this sweep or search")):
        assert mfs(command, str(path)) == 2
        assert f"{path}: {what} has not finished; the same command with --out {path} goes on" in mfs.err


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["nowhere"], "not the directory of a finished run"),
        (["run", "--against", "sjf"], "there are fair"),
        (["run"], "one run only"),
        (["run", "sweep"], "runs with runs"),
        (["sweep"], "not a sweep of ours"),
    ],
)
def test_what_cannot_be_compared(mfs: Mfs, tmp_path: Path, words: list[str], reason: str) -> None:
    write(tmp_path / "run", FAIR)
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    paths = {"nowhere", "run", "sweep"}
    assert mfs("compare", *(str(tmp_path / word) if word in paths else word for word in words)) == 2
    assert reason in mfs.err
    assert "Traceback" not in mfs.err
