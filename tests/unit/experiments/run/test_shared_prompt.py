"""Eight units and one system prompt that all requests share, a little further apart than a prefill.

Every queue is empty at every arrival, and soon every unit has the prefix. So nothing but ties tells the units
apart, and the KV that has still to leave their NICs: 831 MB per request, 66 ms at 100 Gb/s, every 20 ms.
"""

from collections import Counter
from pathlib import Path

import pytest
from trace_files import mooncake

from experiments.resolve.jobs import resolve
from experiments.run.all_jobs import run_job
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS
from testbed.record import RequestRow

REQUESTS = 120

SCENARIO = """
name: shared-prompt
fabric: sim
topology: {{kind: star, servers: 13, nic_gbps: 100}}
model: llama-3-8b
gpu: h100
units: {{prefill_units: 8, ranks_per_unit: 1, decode_ranks: 5}}
workload:
  {{kind: mooncake, path: {trace}, requests: {requests}, load: null, time_scale: 1, spread_ticks: false}}
policies: [fair]
"""


def ran(folder: Path, *settings: str, every_ms: int = 20, alone_ms: int = 0) -> tuple[RequestRow, ...]:
    """Run prompts of 12 shared blocks and 200 own tokens. The first is alone for `alone_ms` more."""
    rows = [
        mooncake(i * every_ms + (alone_ms if i else 0), 12 * 512 + 200, 10, (*range(12), 1000 + i))
        for i in range(REQUESTS)
    ]
    trace = folder / "trace.jsonl"
    trace.write_text("\n".join(rows) + "\n")
    path = folder / "scenario.yaml"
    path.write_text(SCENARIO.format(trace=trace, requests=REQUESTS))
    job = resolve(load_scenario(str(path), [override(text) for text in settings])).jobs[0]
    return tuple(run_job(FABRICS["sim"](), job, lambda state: None).requests)


def mean_ttft_ms(rows: tuple[RequestRow, ...]) -> float:
    return sum(row.ttft_ns or 0 for row in rows) / len(rows) / 1e6


@pytest.mark.parametrize("router", ["kv-aware", "prefix-affinity", "least-queued-tokens", "dual-hash"])
@pytest.mark.parametrize("reuse", ["fetch", "recompute", "cheaper"])
@pytest.mark.parametrize("alone_ms", [0, 1000])
def test_no_unit_gets_over_a_third_of_the_requests(
    tmp_path: Path, router: str, reuse: str, alone_ms: int
) -> None:
    """If the first request is alone for a second, one unit has the prefix when the others come.

    All other units would have to fetch it, or to compute it again. Then `kv-aware` does so on as many as it
    takes to keep up with 50 requests a second of 66 ms of S3 each: four or more.
    """
    settings = (f"serving.router={router}", f"serving.reuse={reuse}")
    units = Counter(row.unit for row in ran(tmp_path, *settings, alone_ms=alone_ms))
    assert len(units) == 8 or (router == "kv-aware" and reuse == "recompute" and len(units) >= 4)
    assert max(units.values()) <= REQUESTS / 3


@pytest.mark.parametrize("reuse", ["fetch", "recompute", "cheaper"])
@pytest.mark.parametrize("alone_ms", [0, 1000])
def test_kv_aware_is_as_fast_as_taking_turns(tmp_path: Path, reuse: str, alone_ms: int) -> None:
    """Nothing beats taking turns here, because all requests are alike: a tenth more is allowed."""
    turns, aware = (
        mean_ttft_ms(ran(tmp_path, f"serving.router={router}", f"serving.reuse={reuse}", alone_ms=alone_ms))
        for router in ("round-robin", "kv-aware")
    )
    assert aware <= 1.1 * turns


@pytest.mark.parametrize("decode", ["least-loaded", "network-aware"])
def test_no_decode_worker_is_left_out(tmp_path: Path, decode: str) -> None:
    """At this pace, all KV has arrived before the next request comes: all five workers tie each time."""
    rows = ran(tmp_path, f"serving.decode={decode}", "serving.router=round-robin", every_ms=300)
    assert set(Counter(row.decode_rank for row in rows).values()) == {REQUESTS // 5}
