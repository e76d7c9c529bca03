"""What is said before a run to which more arrives than the cluster can do."""

import json
import re
from pathlib import Path

import pytest
from toy_fabric import Mfs

from experiments.resolve.jobs import Resolved, resolve
from experiments.resolve.work_demand import demand
from experiments.scenario.reading import load_scenario, override


def resolved(name: str, *settings: str) -> Resolved:
    return resolve(load_scenario(name, [override(text) for text in ("fabric=sim", *settings)]))


def trace(folder: Path, gap_ms: int, count: int = 20) -> Path:
    path = folder / "trace.jsonl"
    rows = ({"timestamp": gap_ms * i, "input_length": 2000, "output_length": 9} for i in range(count))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def keys(path: Path, *settings: str, requests: int = 20) -> tuple[str, ...]:
    return (f"workload.path={path}", f"workload.requests={requests}", *settings)


def overloads(made: Resolved) -> list[str]:
    """The warnings about what arrives, without those about other things."""
    return [text for text in made.warnings if "more arrives than" in text]


def test_a_trace_at_its_own_rate_names_the_time_scale_that_it_takes(tmp_path: Path) -> None:
    """Requests arrive every 10 ms, which is 100/s. The capacity C makes it 100 / C times too much."""
    path = trace(tmp_path, 10)
    made = resolved("quickstart", *keys(path, "workload.time_scale=1"))
    too_much = 100 / demand(made.jobs[0], made.jobs[0].requests).capacity_rps
    assert too_much > 1

    [told] = overloads(made)
    assert told in made.notes
    assert "at 100 requests/s" in told
    assert told.endswith(f"it takes a workload.time_scale of at least {too_much:.3g}")

    enough = resolved("quickstart", *keys(path, f"workload.time_scale={1.01 * too_much}"))
    assert overloads(enough) == []


def test_a_port_that_is_too_slow_is_named_with_its_rate(tmp_path: Path) -> None:
    """At 1 Gb/s, what a port would have to carry is as many Gb/s as it is times its rate."""
    made = resolved("quickstart", *keys(trace(tmp_path, 10), "workload.time_scale=1", "topology.nic_gbps=1"))

    [told] = overloads(made)
    found = re.search(r"port (\S+) would have to carry (\S+) Gb/s of 1 \((\S+) times its rate\)", told)
    assert found is not None
    assert float(found[3]) == pytest.approx(float(found[2]), rel=0.01)
    assert found[1] in {link.id for link in made.jobs[0].topology.links}


def test_a_load_above_one_is_told_and_one_below_is_not() -> None:
    """How many of 48 requests happen to arrive early makes no difference: 1.5 is 1.5 for every seed."""
    for seed in (1, 2, 3):
        [told] = overloads(resolved("quickstart", "workload.load=1.5", f"seed={seed}"))
        assert "workload.load is 1.5" in told
    assert told.endswith("workload.load below 1, or a lower workload.rate, makes arrivals rarer")
    assert overloads(resolved("quickstart", "workload.load=0.7")) == []


def test_a_stretched_trace_is_told_of_all_three_keys(tmp_path: Path) -> None:
    [told] = overloads(resolved("quickstart", *keys(trace(tmp_path, 10), "workload.load=1.5")))

    assert told.endswith(
        "workload.load below 1, a lower workload.rate or workload.time_scale makes them rarer"
    )


def test_a_handful_of_requests_has_no_rate_to_speak_of(tmp_path: Path) -> None:
    path = trace(tmp_path, 1, count=9)

    assert overloads(resolved("quickstart", *keys(path, "workload.time_scale=1", requests=9))) == []


def coflows(folder: Path) -> tuple[str, ...]:
    """11 coflows, a second apart, of 250 MB (2**20 bytes) from rack 0 to rack 1, on ports of 1 Gb/s."""
    path = folder / "coflows.txt"
    path.write_text("2 11\n" + "".join(f"{i} {1000 * i} 1 0 1 1:250\n" for i in range(11)))
    return (f"workload.path={path}", "topology.servers=2", "topology.nic_gbps=1")


def test_coflows_that_no_port_can_carry_are_told(tmp_path: Path) -> None:
    """They need 11 x 250 x 2**20 x 8 / 1e9 = 23.07 s, and begin within 10 s: 2.31 times too much."""
    settings = coflows(tmp_path)

    [told] = overloads(resolved("coflow-small", *settings))
    assert "needs 23.07 s for what arrives in 10 s (2.31 times its rate)" in told
    assert told.endswith("it takes a workload.time_scale of at least 2.31")
    assert overloads(resolved("coflow-small", *settings, "workload.time_scale=2.4")) == []


def test_flows_that_start_too_fast_are_told() -> None:
    """Ten flows of 1 Gbit, one every 0.5 s, on 1 Gb/s: 10 s of work begin within 4.5 s."""
    flows = [
        {"id": f"f{i}", "src": "h1", "dst": "h2", "bytes": 125 * 10**6, "start_s": i / 2} for i in range(10)
    ]
    keys = (f"workload.flows={json.dumps(flows)}", "topology.nic_gbps=1")

    [told] = overloads(resolved("two-flows", *keys))
    assert "needs 10 s for what arrives in 4.5 s (2.22 times its rate)" in told
    assert told.endswith("start them further apart (start_s of workload.flows)")


def test_the_command_says_it_before_the_run(mfs: Mfs, tmp_path: Path) -> None:
    """With --json, standard output has nothing but the summary."""
    settings = [text for setting in coflows(tmp_path) for text in ("--set", setting)]

    code = mfs("run", "coflow-small", "--fabric", "toy", "--json", "--out", "out", *settings)

    assert code == 0
    assert mfs.err.index("mfs: more arrives than the network can carry") < mfs.err.index("sending")
    assert any("more arrives" in note for note in json.loads(mfs.out)["notes"])
