"""Real layers on rehearsed servers, whose clocks differ: first tokens are those of the whole model."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.slow

REQUESTS = 3
KV_BYTES = 4 * 2 * 4 * 16 * 2
"""KV of a token: 4 layers, keys and values, 4 heads, 16 wide, 2 B."""


class Rehearsed:
    """What the rehearsal of a scenario has left."""

    def __init__(self, scenario: str, directory: Path) -> None:
        code = "from experiments.cli.app import main; main()"
        done = subprocess.run(
            [
                *(sys.executable, "-P", "-c", code, "cluster", "rehearse", scenario, "--policy", "mfs"),
                *("--set", f"workload.requests={REQUESTS}", "--set", "scale.time_dilation=8", "--out", "out"),
            ],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=600,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        self._out = directory / "out"
        self.summary: dict[str, Any] = json.loads((self._out / "summary.json").read_text())

    def rows(self, table: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = pq.read_table(self._out / f"{table}.parquet").to_pylist()
        return found


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> Rehearsed:
    """Of the model with experts. The emulated tests of real layers have the dense one as well."""
    return Rehearsed("real-layers-moe", tmp_path_factory.mktemp("rehearsed"))


def test_first_tokens_are_those_of_the_whole_model(rehearsed: Rehearsed) -> None:
    """All KV that arrived is compared, element by element."""
    rows = rehearsed.rows("requests")
    assert len(rows) == REQUESTS
    for row in rows:
        assert row["kv_bytes"] == row["prompt_tokens"] * KV_BYTES
        assert row["token"] == row["expected_token"] or row["token_gap"] < 0.002  # rounding decides a tie
        assert row["logit_error"] < 0.02
        assert row["kv_error"] < 0.05


def test_the_checks_of_the_run_say_so(rehearsed: Rehearsed) -> None:
    [run] = rehearsed.summary["runs"]
    checks = {check["name"]: check for check in run["fidelity"]["checks"]}
    assert checks["first tokens of the whole model"]["value"] == 1.0
    assert checks["first tokens of the whole model"]["ok"]
    assert run["facts"]["clock_ahead_s"] == 5000.0  # of h5, whose clock the rehearsal has set so


def test_collectives_and_transfers_carry_real_tensors(rehearsed: Rehearsed) -> None:
    flows = rehearsed.rows("flows")
    assert {"S2", "S3"} <= {flow["stage"] for flow in flows}
    assert all(flow["verified"] for flow in flows if flow["stage"] != "S2")
