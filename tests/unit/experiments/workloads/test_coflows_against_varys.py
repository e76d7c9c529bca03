"""`sebf` in exact order against completion times worked out by hand, and by a program of a few lines.

A NIC carries one MB (2**20 bytes) in a millisecond. `coflow_fluid` shares no code with the testbed.
"""

import random
from pathlib import Path

import numpy as np
import pytest
from coflow_fluid import Floats, Shuffles, smallest_bottleneck_first

from experiments.resolve.jobs import resolve
from experiments.results.measures import flow_measures
from experiments.scenario.reading import load_scenario, override
from testbed.fabrics import FABRICS

MB = 2**20
MS = 1_000_000


def played(folder: Path, *lines: str, racks: int) -> tuple[Shuffles, Floats]:
    """Run the coflows of these lines of a trace under `sebf`: what is sent, and completion times in ms."""
    path = folder / "trace.txt"
    path.write_text("\n".join([f"{racks} {len(lines)}", *lines]) + "\n")
    settings = [f"workload.path={path}", f"topology.servers={racks}", "policies=[sebf]"]
    texts = [*settings, "fabric=sim", "simulation.order=exact"]
    job = resolve(load_scenario("coflow-small", [override(text) for text in texts])).jobs[0]
    names = list(dict.fromkeys(flow.transfer.coflow for flow in job.flows))
    sent = [
        (
            names.index(flow.transfer.coflow),
            flow.transfer.src,
            flow.transfer.dst,
            flow.transfer.size_bytes / MB,
        )
        for flow in job.flows
    ]
    arrival = {flow.transfer.coflow: flow.start_ns / MS for flow in job.flows}
    record = FABRICS["sim"]().run(job, lambda progress: None)
    took_ns = flow_measures(record.flows, units={}).coflow_ns
    return Shuffles(sent, [arrival[name] for name in names]), np.array([took_ns[n] / MS for n in names if n])


@pytest.mark.parametrize(
    ("lines", "ours_ms", "varys_ms"),
    [
        # Racks 0 and 1 send to racks 2 and 3. c1: 4 MB from 0 to 2. c2: 1 MB from 1 to each. c3: 2.5 MB from
        # 1 to 3. Gamma is 4, 2 and 2.5. c2 has half of rack 1 for each of its flows until 2, and c1 the other
        # half of the way into rack 2. From 2 on, c1 sends its other 3 MB, and c3 its 2.5 MB.
        (("1 0 1 0 1 2:4.0", "2 0 1 1 2 2:1.0 3:1.0", "3 0 1 1 1 3:2.5"), [5, 2, 4.5], [5, 2, 4.5]),
        # c1: 5 MB from 0 to 2. c2: 3 MB from 0 to 3, at 3. c1 has 2 MB left then and keeps its place. c3:
        # 0.5 MB from 1 to 2, at 4, before c1. While c1 waits, from 4 to 4.5, c2 has rack 0. Then c1 sends its
        # last MB until 5.5, and c2 its last 2.5 MB until 8.
        (("1 0 1 0 1 2:5.0", "2 3 1 0 1 3:3.0", "3 4 1 1 1 2:0.5"), [5.5, 5, 0.5], [5.5, 5, 0.5]),
        # c1: 2 MB from 0 to 3. c2: 4 MB from 1 to 2. c3: 1 MB from 1 to 3, and 2 MB from 1 to 2. Gamma is 2,
        # 4 and 3. Here, c3 sends to rack 2 at once, and to rack 3 from 2 to 3, and c2 from 3 to 7. Varys has
        # no rate for c3 as long as c1 has all of rack 3. Rack 1 goes to c2, which has 2 MB left at 2, less
        # than c3 has. So c2 ends at 4, and c3 at 7.
        (("1 0 1 0 1 3:2.0", "2 0 1 1 1 2:4.0", "3 0 1 1 2 3:1.0 2:2.0"), [2, 7, 3], [2, 4, 7]),
    ],
)
def test_three_coflows_on_two_ports(
    tmp_path: Path, lines: tuple[str, ...], ours_ms: list[float], varys_ms: list[float]
) -> None:
    shuffles, took_ms = played(tmp_path, *lines, racks=4)

    assert took_ms.tolist() == ours_ms
    assert smallest_bottleneck_first(shuffles, madd=False) == pytest.approx(ours_ms)
    assert smallest_bottleneck_first(shuffles, madd=True) == pytest.approx(varys_ms)


def shuffles_of(seed: int) -> list[str]:
    """Thirty shuffles between six racks, of sizes so uneven that no two coflows have the same Gamma."""
    draw = random.Random(seed)
    lines, arrival_ms = [], 0
    for number in range(30):
        mappers = draw.sample(range(6), draw.randint(1, 3))
        others = [rack for rack in range(6) if rack not in mappers]
        reducers = draw.sample(others, draw.randint(1, 3))
        sizes = [f"{rack}:{draw.lognormvariate(0, 1) * 3:.4f}" for rack in reducers]
        lines.append(" ".join(map(str, [number, arrival_ms, len(mappers), *mappers, len(reducers), *sizes])))
        arrival_ms += round(draw.expovariate(1 / 3))
    return lines


def test_random_shuffles_take_what_another_program_says_and_on_average_what_they_take_in_varys(
    tmp_path: Path,
) -> None:
    of_varys = []
    for seed in range(12):
        shuffles, took_ms = played(tmp_path, *shuffles_of(seed), racks=6)
        # An end is rounded up to a nanosecond, and delays what waits for it.
        assert took_ms == pytest.approx(smallest_bottleneck_first(shuffles, madd=False), abs=1e-4)
        of_varys.append(took_ms.mean() / smallest_bottleneck_first(shuffles, madd=True).mean())

    assert np.mean(of_varys) == pytest.approx(1, abs=0.02)
