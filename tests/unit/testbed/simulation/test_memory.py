"""Memory of a simulated run does not grow with simulated time, apart from what each request itself needs."""

import gc
import json
import subprocess
import sys

import pytest

from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS

FEW, MANY = 150, 600
BYTES_PER_REQUEST = 12_288
"""Bound on what a request adds. It has 40 flows, 40 decisions and 68 spans, which as objects take 33 kB."""

PROGRAM = """
import json, resource, sys
import msgspec
from experiments.resolve.jobs import resolve
from experiments.scenario.reading import load_scenario, override
from experiments.results.summary import summarise
from testbed.fabrics import FABRICS
from testbed.columns import ColumnSpool

# Small blocks, so that the smaller run fills several of each kind too.
ColumnSpool.__init__.__kwdefaults__["block_rows"] = 256

def peak_bytes(requests):
    texts = ["fabric=sim", 'policies=["fair"]', f"workload.requests={requests}"]
    job = resolve(load_scenario("quickstart", [override(text) for text in texts])).jobs[0]
    job = msgspec.structs.replace(job, model=msgspec.structs.replace(job.model, layers=6))
    record = FABRICS["sim"]().run(job, lambda progress: None)
    summarise(scenario="s", fabric="sim", seed=1, scale=job.scale, records=[record])
    counts = len(record.flows), len(record.decisions), len(record.spans)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, counts

print(json.dumps([peak_bytes(int(count)) for count in sys.argv[1:]]))
"""


@pytest.mark.slow
def test_four_times_the_requests_take_little_more_memory() -> None:
    """One process runs both, so all code is compiled and imported before the second one."""
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(FEW), str(MANY)], check=True, capture_output=True, text=True
    )
    (small, few_rows), (large, many_rows) = json.loads(told.stdout)
    assert all(many > 3 * few for few, many in zip(few_rows, many_rows, strict=True))
    assert large - small < BYTES_PER_REQUEST * (MANY - FEW)


@pytest.mark.parametrize(
    "settings", [(), ("units.tp=2", "units.ep=4", "units.sp=2"), ("serving.chunk_tokens=512",)]
)
def test_what_is_over_is_gone_without_the_garbage_collector(settings: tuple[str, ...]) -> None:
    """Reference cycles would keep every flow and collective until it runs, and make it look at them all."""
    texts = ("fabric=sim", 'policies=["mfs"]', *settings)

    def run(requests: int) -> tuple[int, int]:
        """The number of flows, and of objects that only the garbage collector finds afterwards."""
        chosen = [override(text) for text in (*texts, f"workload.requests={requests}")]
        job = resolve(load_scenario("quickstart", chosen)).jobs[0]
        gc.collect()
        record = FABRICS["sim"]().run(job, lambda progress: None)
        return len(record.flows), gc.collect()

    run(2)  # compiles
    gc.disable()
    try:
        (few, left_by_few), (many, left_by_many) = run(4), run(16)
    finally:
        gc.enable()
    assert many - few > 1_000
    assert left_by_many - left_by_few < 0.2 * (many - few)  # lanes stay
