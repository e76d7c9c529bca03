"""What `mfs workload describe` says of a trace, against numbers worked out by hand and another program."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.errors import UserError
from experiments.trace_formats.formats import TraceFormat
from experiments.traces.columns import Columns, arrivals_of, lengths_of, read_columns
from experiments.traces.describe import as_json, cache_for, describe, rows_of
from experiments.traces.reuse import DistanceQuantiles, HitCurve, Prefix, reuse_of
from experiments.workloads.synthetic import GENERATORS
from testbed.serving.cache.prefix_index import PrefixIndex

SHARED = Path(__file__).parents[5] / "shared" / "traces"
S = 1_000_000_000


def columns(
    *prompts: tuple[int, ...],
    times_s: tuple[float, ...] | None = None,
    tokens: tuple[int, ...] | None = None,
    block_tokens: int = 10,
) -> Columns:
    """Requests with these blocks; unless told, a second apart, and with 5 tokens behind the blocks."""
    at = np.array(range(len(prompts)) if times_s is None else times_s, dtype=np.float64)
    lengths = [len(prompt) * block_tokens + 5 for prompt in prompts] if tokens is None else tokens
    return Columns(
        time_ns=(at * S).astype(np.int64),
        prompt_tokens=np.array(lengths, dtype=np.int64),
        output_tokens=np.ones(len(prompts), dtype=np.int64),
        blocks=np.array([block for prompt in prompts for block in prompt], dtype=np.int64),
        starts=np.cumsum([0, *map(len, prompts)]),
        block_tokens=block_tokens,
    )


FOUR = columns((0, 1), (2,), (0, 1, 3), (2, 4), tokens=(25, 15, 35, 20))
"""Recency after each, latest first: 0 1; 2 0 1; 0 1 3 2. The third finds 0 behind one block and 1 behind two,
the fourth 2 behind three: distances 1, 2 and 3, each two requests after the last use."""


def test_reuse_is_told_by_hand() -> None:
    reuse, curve = reuse_of(FOUR)

    assert reuse.token_share == pytest.approx(30 / 95)
    assert reuse.request_share == 0.5
    assert reuse.distance_requests == DistanceQuantiles(p50=2, p90=2)
    assert reuse.distance_blocks == DistanceQuantiles(p50=2, p90=pytest.approx(2.8))  # 1, 2, 3: rank 1.8
    assert reuse.distinct_blocks == 5
    assert curve.cache_tokens == [10, 20, 30, 40]
    assert curve.hit_rate == pytest.approx([0, 10 / 95, 20 / 95, 30 / 95])


def test_a_shared_prefix_is_told_once_at_its_full_length() -> None:
    """0 1 and 2 are shared twice each. 0 alone is no other prefix: whoever has it goes on with 1."""
    reuse, _ = reuse_of(FOUR)

    assert (reuse.prefixes, reuse.zipf) == (2, pytest.approx(0, abs=1e-9))
    assert reuse.most_shared == (Prefix(tokens=20, requests=2), Prefix(tokens=10, requests=2))


def test_a_prefix_that_fewer_go_on_from_is_one_of_its_own() -> None:
    """0 by all four, 0 1 by two of them: the longer one is the only one that nothing shared continues."""
    reuse, _ = reuse_of(columns((0, 1), (0, 1), (0, 2), (0, 3)))

    assert reuse.prefixes == 1
    assert reuse.most_shared == (Prefix(tokens=10, requests=4), Prefix(tokens=20, requests=2))


def test_a_prompt_uses_the_prefix_that_it_is_on_the_way_to() -> None:
    """0 leads to 1 and 2, so who has 0 alone uses neither; 3 leads to 4 only, so who has 3 uses that.

    0 1 has 2 users, 0 2 has 2, 3 4 has 2 and two more: 4, 2 and 2.
    """
    reuse, _ = reuse_of(columns((0, 1), (0, 1), (0, 2), (0, 2), (0,), (3, 4), (3, 4), (3,), (3,)))

    assert reuse.prefixes == 3
    ranks, logs = np.log([1, 2, 3]), np.log([4, 2, 2])
    slope = np.sum((ranks - ranks.mean()) * (logs - logs.mean())) / np.sum((ranks - ranks.mean()) ** 2)
    assert reuse.zipf == pytest.approx(-slope)


def test_popularity_is_the_slope_over_ranks() -> None:
    """Four texts used 24, 12, 8 and 6 times: 24 / rank."""
    prompts = [(text,) for text, uses in enumerate((24, 12, 8, 6)) for _ in range(uses)]

    assert reuse_of(columns(*prompts))[0].zipf == pytest.approx(1.0)


def test_nothing_is_reused_where_prompts_have_no_blocks() -> None:
    reuse, curve = reuse_of(columns((), (), ()))

    assert (reuse.token_share, reuse.request_share, reuse.prefixes) == (0, 0, 0)
    assert reuse.distance_blocks == DistanceQuantiles(p50=None, p90=None)
    assert curve == HitCurve(cache_tokens=[], hit_rate=[])


@pytest.mark.parametrize("kind", GENERATORS)
@pytest.mark.parametrize("seed", [1, 2])
def test_a_cache_of_each_size_hits_what_the_prefix_index_hits(kind: str, seed: int) -> None:
    made = GENERATORS[kind](300, seed, "default").requests
    found = columns(
        *[request.blocks for request in made],
        tokens=tuple(request.prompt_tokens for request in made),
        block_tokens=made[0].block_tokens,
    )
    _, curve = reuse_of(found)
    total = sum(request.prompt_tokens for request in made)

    for point in range(0, len(curve.cache_tokens), 40):
        index = PrefixIndex(1, curve.cache_tokens[point] // found.block_tokens)
        hits = 0
        for request in made:
            hits += len(index.lookup(request.blocks))
            index.insert(request.blocks, 0)
        assert curve.hit_rate[point] == pytest.approx(hits * found.block_tokens / total)


def test_the_cache_for_a_share_is_the_smallest_that_has_it() -> None:
    curve = HitCurve(cache_tokens=[10, 20, 30], hit_rate=[0.1, 0.2, 0.4])

    assert [cache_for(curve, share) for share in (0.25, 0.5, 0.51, 1.0)] == [10, 20, 30, 30]


def test_arrivals_are_told_by_hand() -> None:
    """Two in each even second up to 12 s: 2, 0, 2, 0 ..., mean 1, variance 12 / 11. 12 gaps are in 12 s."""
    at = tuple(second + part for second in range(0, 12, 2) for part in (0, 0.5))
    found = arrivals_of(columns(*[()] * 13, times_s=(*at, 12.0)))

    assert (found.span_s, found.rate_rps) == (12, 1)
    assert found.dispersion == {1: pytest.approx(12 / 11), 10: None}
    # Gaps of 0.5 and 1.5 s, six each: 1 on average, give or take 0.5.
    assert found.gap_cv == pytest.approx(0.5)


def test_requests_that_all_arrive_at_once_have_no_rate() -> None:
    found = arrivals_of(columns((), (), times_s=(0, 0)))

    assert (found.rate_rps, found.gap_cv, found.dispersion) == (None, None, {1: None, 10: None})


def test_lengths_are_told_by_hand() -> None:
    """100 and 300: mean 200, deviation 100. The p90 is at rank 0.9 between them."""
    found = lengths_of(np.array([100, 300]))

    assert (found.mean, found.cv, found.p50, found.max) == (200, 0.5, 200, 300)
    assert found.p90 == pytest.approx(280)


def trace(folder: Path, count: int = 6) -> Path:
    """Mooncake rows a second apart, which all begin with block 0."""
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


@pytest.mark.parametrize(("skip", "requests"), [(6, None), (4, 3)])
def test_rows_that_are_not_there_cannot_be_described(tmp_path: Path, skip: int, requests: int | None) -> None:
    with pytest.raises(UserError, match="the file has 6 requests"):
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
