"""A trace by columns: arrivals and lengths, against numbers worked out by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from trace_columns import columns
from trace_files import AZURE, mooncake, trace

from experiments.errors import UserError
from experiments.trace_formats import pieces
from experiments.trace_formats.formats import TraceFormat
from experiments.traces.columns import arrivals_of
from experiments.traces.describe import describe, rows_of
from experiments.traces.lengths import LengthCounter, Lengths, lengths_of
from experiments.traces.reading import read_columns


def test_arrivals_are_told_by_hand() -> None:
    """Two in each even second up to 12 s: 2, 0, 2, 0 ..., mean 1, variance 12 / 11. 12 gaps in 12 s."""
    at = tuple(second + part for second in range(0, 12, 2) for part in (0, 0.5))
    found = arrivals_of(columns(*[()] * 13, times_s=(*at, 12.0)))

    assert (found.span_s, found.rate_rps) == (12, 1)
    assert found.dispersion == {1: pytest.approx(12 / 11), 10: None}
    # Six gaps each of 0.5 and 1.5 s: the mean is 1 and the deviation 0.5.
    assert found.gap_cv == pytest.approx(0.5)


def test_requests_that_all_arrive_at_once_have_no_rate() -> None:
    found = arrivals_of(columns((), (), times_s=(0, 0)))

    assert (found.rate_rps, found.gap_cv, found.dispersion) == (None, None, {1: None, 10: None})


def test_lengths_are_told_by_hand() -> None:
    """100 and 300: the mean is 200, the deviation 100. The p90 is at rank 0.9 between them."""
    found = lengths_of(Lengths.of(np.array([100, 300])))

    assert (found.mean, found.cv, found.p50, found.max) == (200, 0.5, 200, 300)
    assert found.p90 == pytest.approx(280)


def test_lengths_that_are_counted_are_those_of_the_numbers_themselves() -> None:
    """0 to 8 once each and 100: the p50 is at rank 4.5, the p90 at 8.1, of which 0.1 is to 100."""
    counter = LengthCounter()
    counter.add_all(np.array([3, 4, 5, 6, 7, 8, 100]))
    for tokens in (0, 2, 1):
        counter.add(tokens)

    found = lengths_of(counter.lengths())

    assert (found.mean, found.p50, found.max) == (13.6, 4.5, 100)
    assert found.p90 == pytest.approx(8 + 0.1 * 92)
    assert counter.lengths().total == 136


def test_rows_in_columns_are_taken_from_the_first_wanted_to_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row i arrives at second i with i + 1 tokens. Pieces have two rows."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 12)
    path = tmp_path / "trace"
    rows = "".join(f"{i},{i + 1},5\n" for i in range(9))
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + rows)

    found = read_columns(path, TraceFormat.VIDUR, skip=3, requests=4)

    assert found.time_ns.tolist() == [0, 10**9, 2 * 10**9, 3 * 10**9]
    assert found.prompt_tokens.values.tolist() == [4, 5, 6, 7]
    assert (found.output_tokens.values.tolist(), found.output_tokens.counts.tolist()) == ([5], [4])
    with pytest.raises(UserError, match="--skip 9: the file has 9 requests"):
        read_columns(path, TraceFormat.VIDUR, skip=9)


@pytest.mark.parametrize("chunk", [1, 3, 4])
def test_arrivals_that_are_worked_on_in_parts_are_the_same(
    monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    made = columns(*[()] * 13, times_s=(0, 0.5, 2, 2.5, 4, 4.5, 6, 6.5, 8, 8.5, 10, 10.5, 12))
    whole = arrivals_of(made)

    monkeypatch.setattr("experiments.traces.columns._CHUNK", chunk)

    assert arrivals_of(made) == whole


def test_turns_are_where_they_would_be_if_answers_took_no_time(tmp_path: Path) -> None:
    """Block 1 is first used at 0, blocks 5 and 6 at 20 ms, and the turn after both, at 50 ms, has block 1."""
    path = trace(
        tmp_path,
        json.dumps({"session_id": "a"} | json.loads(mooncake(10, tokens=600, output=1, ids=(1, 2)))),
        json.dumps(
            {"session_id": "a", "delay": 50, "input_length": 1024, "output_length": 2, "hash_ids": [1, 3]}
        ),
        mooncake(30, tokens=1024, output=3, ids=(5, 6)),
    )

    found = read_columns(path, TraceFormat.MOONCAKE)

    assert found.time_ns.tolist() == [0, 20_000_000, 50_000_000]
    assert found.output_tokens.values.tolist() == [1, 2, 3]
    assert (found.blocks.tolist(), found.starts.tolist()) == ([0, 1, 2, 0, 3], [0, 1, 3, 5])


@pytest.mark.parametrize("piece_bytes", [50, 10**6])
def test_blocks_are_numbered_alike_however_rows_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece_bytes: int
) -> None:
    """Rows without ids before, between and behind those with ids. The last id of 600 tokens is not full."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", piece_bytes)
    bare = '{"timestamp": 5, "input_length": 600, "output_length": 1}'
    path = trace(
        tmp_path,
        bare,
        mooncake(5, tokens=1024, output=1, ids=(90, 70)),
        bare,
        mooncake(5, tokens=600, output=1, ids=(90, 80)),
        mooncake(5, tokens=1536, output=1, ids=(90, 20, 70)),
        bare,
    )

    found = read_columns(path, TraceFormat.MOONCAKE)

    assert (found.blocks.tolist(), found.starts.tolist()) == ([0, 1, 0, 0, 2, 1], [0, 0, 2, 2, 3, 6, 6])
    assert any("3 of 6 requests have no ids of blocks" in note for note in found.notes)
    part = read_columns(path, TraceFormat.MOONCAKE, skip=3, requests=2)
    assert (part.blocks.tolist(), part.starts.tolist()) == ([0, 0, 1, 2], [0, 1, 4])


def test_rows_in_columns_may_follow_a_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The turn comes 50 ms after the first row, behind the row at 30 ms that stands below it."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", 100)
    path = trace(
        tmp_path,
        json.dumps({"session_id": "a"} | json.loads(mooncake(10, tokens=512, output=1, ids=(4,)))),
        json.dumps({"session_id": "a", "delay": 50, "input_length": 1024, "output_length": 1}),
        mooncake(30, tokens=512, output=1, ids=(4,)),
        mooncake(90, tokens=512, output=1, ids=(6,)),
    )

    found = read_columns(path, TraceFormat.MOONCAKE)

    assert found.time_ns.tolist() == [0, 20_000_000, 50_000_000, 80_000_000]
    assert (found.blocks.tolist(), found.starts.tolist()) == ([0, 0, 1], [0, 1, 2, 2, 3])


def test_a_trace_without_times_says_so(tmp_path: Path) -> None:
    found = read_columns(trace(tmp_path, '{"prompt": "x"}', '{"prompt": "y"}'), TraceFormat.SHAREGPT)

    assert found.time_ns.tolist() == [0, 0]
    assert any("no arrival times" in note for note in found.notes)


def test_a_header_alone_is_refused_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"trace: the file has 0 requests$"):
        read_columns(trace(tmp_path, AZURE), TraceFormat.AZURE)


def test_the_tick_of_a_sparse_trace_is_described(tmp_path: Path) -> None:
    """Four of 14 arrivals share their second."""
    seconds = (0, 0, 2, 3, 5, 6, 6, 8, 9, 11, 13, 14, 16, 17)
    path = trace(tmp_path, *(mooncake(1000 * second) for second in seconds))

    found = describe(read_columns(path, TraceFormat.MOONCAKE))

    assert (found.tick_s, found.shared_stamps) == (1, 4 / 14)
    assert dict(rows_of(found))["tick of the time stamps"] == "1 s; 28.6% share theirs"
    as_stamped = read_columns(path, TraceFormat.MOONCAKE, spread_ticks=False)
    assert describe(as_stamped).tick_s == 1
    assert as_stamped.time_ns.tolist() == [second * 1_000_000_000 for second in seconds]
