"""The compiled loops do not check indices, and a wrong one corrupts memory. So they run uncompiled here."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[5]

PROGRAM = """
import random
from testbed.simulation.links.network import FluidNetwork

LEVELS = [0, 3, 6, *[7] * 60]  # nearly all on the lowest: nothing is below it
rng = random.Random(7)
for guarantee in (0.0, 0.02):
    ports = rng.randint(2, 4)
    network = FluidNetwork({f"p{i}": rng.choice([8, 16]) * 10**9 for i in range(ports)}, guarantee=guarantee)
    alive, now_ns = [], 0
    for step in range(60):
        for _ in range(rng.randint(0, 6 if step % 30 else 270)):  # now and then more than there are rows
            path = rng.sample(range(ports), rng.randint(1, ports))
            weights = rng.choice([None, None, [rng.random() + 0.1 for _ in path]])
            place = rng.choice(LEVELS), float(rng.randint(0, 1))
            cap = rng.choice([None, None, rng.random()])
            alive.append(network.add(path, rng.randint(1, 5000), place, cap, weights))
        for stream in rng.sample(alive, min(len(alive), rng.randint(0, 3))):
            network.move(stream, (rng.choice(LEVELS), 0.0), rng.choice([None, 0.5]))
        network.settle(now_ns)
        end_ns = network.next_end_ns()
        if end_ns is not None:
            now_ns = end_ns
            for done in network.take_finished(now_ns):
                alive.remove(done)
    network.settle(now_ns)
    assert guarantee or network.held_back(1e-9) == 0
    network.sent_bytes(now_ns)
    network.busy_ns(now_ns, "p0")
print("done")
"""


def test_no_index_leaves_its_array_on_any_level() -> None:
    """numpy raises `IndexError` where the compiled loop would overwrite something else."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout.strip()) == (0, "done"), ran.stderr[-2000:]
