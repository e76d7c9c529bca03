"""What `mfs workload describe` says about a trace."""

import json
from pathlib import Path

import pytest
from trace_columns import columns
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.errors import UserError
from experiments.trace_formats.formats import TraceFormat
from experiments.traces.describe import as_json, cache_for, describe, rows_of
from experiments.traces.reading import read_columns
from experiments.traces.reuse import HitCurve, Prefix

SHARED = Path(__file__).parents[5] / "shared" / "traces"


S = 1_000_000_000


def test_the_cache_for_a_share_is_the_smallest_that_has_it() -> None:
    curve = HitCurve(cache_tokens=[10, 20, 30], hit_rate=[0.1, 0.2, 0.4])

    assert [cache_for(curve, share) for share in (0.25, 0.5, 0.51, 1.0)] == [10, 20, 30, 30]


def trace(folder: Path, count: int = 6) -> Path:
    """Mooncake rows that are a second apart and all begin with block 0."""
    path = folder / "trace.jsonl"
    rows = (
        {"timestamp": 1000 * i, "input_length": 1000, "output_length": 1, "hash_ids": [0, i + 1]}
        for i in range(count)
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_the_rows_that_are_taken_are_described(tmp_path: Path) -> None:
    found = read_columns(trace(tmp_path), TraceFormat.MOONCAKE, skip=2, requests=3)

    assert found.time_ns.tolist() == [0, S, 2 * S]
    # Of 1000 tokens one block of 512 is full.
    assert (found.blocks.tolist(), found.starts.tolist()) == ([0, 0, 0], [0, 1, 2, 3])


@pytest.mark.parametrize(
    ("skip", "requests", "asked"),
    [(6, None, "--skip 6"), (4, 3, "--skip 4 --requests 3"), (0, 7, "--requests 7")],
)
def test_rows_that_are_not_there_cannot_be_described(
    tmp_path: Path, skip: int, requests: int | None, asked: str
) -> None:
    with pytest.raises(UserError, match=f": {asked}: the file has 6 requests"):
        read_columns(trace(tmp_path), TraceFormat.MOONCAKE, skip=skip, requests=requests)


def test_the_command_prints_a_table_and_writes_a_page(tmp_path: Path) -> None:
    out = tmp_path / "out"

    told = CliRunner().invoke(app, ["workload", "describe", str(trace(tmp_path)), "--out", str(out)])

    assert told.exit_code == 0, told.output
    # 5 of 6 requests of 1000 tokens find 512 of them.
    assert "42.7%" in told.output
    page = (out / "workload.html").read_text()
    assert page.count("<svg") == 3
    assert "http" not in page.replace("http://www.w3.org", "")
    written = json.loads((out / "describe.json").read_text())
    assert written["reuse"]["token_share"] == pytest.approx(5 * 512 / 6000)
    assert written["arrivals"]["dispersion"] == {"1": None, "10": None}


def test_the_json_is_all_that_is_printed(tmp_path: Path) -> None:
    path = trace(tmp_path)

    told = CliRunner().invoke(app, ["workload", "describe", str(path), "--json", "--requests", "4"])

    assert told.stdout == as_json(describe(read_columns(path, TraceFormat.MOONCAKE, requests=4)))
    assert json.loads(told.stdout)["requests"] == 4


def test_a_trace_without_reuse_says_nothing_of_caches() -> None:
    names = [name for name, _ in rows_of(describe(columns((), ())))]

    assert "prompt tokens that can be reused" in names
    assert not any("cache" in name for name in names)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published traces are not here")
def test_the_real_conversations_share_their_first_block() -> None:
    path = SHARED / "mooncake-conversation" / "conversation_trace.jsonl"

    found = describe(read_columns(path, TraceFormat.MOONCAKE))

    assert found.requests == 6011
    assert found.reuse.most_shared[0] == Prefix(tokens=512, requests=6011)
    assert 0.3 < found.reuse.token_share < 0.4
