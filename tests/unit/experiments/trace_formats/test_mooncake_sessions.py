"""What other programs have added to Mooncake's format: other keys, turns of conversations, texts."""

import json
from pathlib import Path

import pytest
from trace_files import load, mooncake, trace

from experiments.errors import UserError
from experiments.trace_formats.formats import TraceFormat, detect_format
from experiments.trace_formats.tally import NO_REUSE

MS = 1_000_000


def line(**keys: object) -> str:
    return json.dumps({"input_length": 1000, "output_length": 5} | keys)


def test_a_trace_without_ids_of_blocks_runs_without_reuse_and_says_so(tmp_path: Path) -> None:
    path = trace(tmp_path, line(timestamp=0), line(timestamp=3, hash_ids=None))

    assert detect_format(path) is TraceFormat.MOONCAKE
    workload = load(path, 2)
    assert [r.blocks for r in workload.requests] == [(0,), (1,)]
    assert workload.notes == (NO_REUSE,)


def test_rows_without_ids_share_no_block_with_those_that_have_some(tmp_path: Path) -> None:
    path = trace(tmp_path, mooncake(0, ids=(0, 1)), line(timestamp=1), mooncake(2, ids=(0, 4)))

    workload = load(path, 3)
    assert [r.blocks for r in workload.requests] == [(0,), (1,), (0,)]
    assert workload.notes == ("1 of 3 requests have no ids of blocks: they reuse nothing",)


def test_ids_as_an_object_are_those_at_its_places(tmp_path: Path) -> None:
    path = trace(tmp_path, mooncake(tokens=1024, ids={"1": 8, "0": 7}))

    assert load(path).requests[0].blocks == (7, 8)


def test_times_may_have_a_fraction_and_other_names(tmp_path: Path) -> None:
    other = json.dumps({"created_time": 3.25, "input_tokens": 600, "output_tokens": 7})
    path = trace(tmp_path, line(timestamp=1.5), other)

    first, second = load(path, 2).requests
    assert (second.arrival_ns, second.prompt_tokens, second.output_tokens) == (1_750_000, 600, 7)
    assert first.output_tokens == 5


def conversation(tmp_path: Path, *more: str) -> Path:
    """Session a: prompts of 600 and 1700 tokens. Another request between, and a turn with a time."""
    return trace(
        tmp_path,
        line(session_id="a", timestamp=10, input_length=600, output_length=100, hash_ids=[1, 2]),
        line(timestamp=15),
        line(session_id="a", delay=50, input_length=1700, output_length=10),
        line(session_id="a", timestamp=900, input_length=1800),
        *more,
    )


def test_a_turn_is_after_the_turn_before_it_and_its_pause(tmp_path: Path) -> None:
    first, alone, second, third = load(conversation(tmp_path), 4).requests

    assert (first.after, alone.after, second.after, third.after) == (None, None, 0, 2)
    assert (second.pause_ns, third.pause_ns) == (50 * MS, 0)
    # The earliest moments: 50 ms after the first, and 890 ms after it by the row's own time.
    assert (alone.arrival_ns, second.arrival_ns, third.arrival_ns) == (5 * MS, 50 * MS, 890 * MS)


def test_the_notes_count_the_turns_that_wait(tmp_path: Path) -> None:
    notes = load(conversation(tmp_path, line(session_id="a", delay=1, input_length=9)), 5).notes

    assert any(note.startswith("3 of 5 requests are later turns of a session") for note in notes)
    assert any("read as its whole prompt; workload.kind: mooncake_delta reads" in note for note in notes)
    assert "1 of these turns have a shorter prompt than the turn before" in notes


def test_added_prompts_continue_the_prompts_and_answers_before(tmp_path: Path) -> None:
    """600 tokens; then 600 + 100 + 1700 = 2400, four full blocks of 512; then 2410 + 1800 = 4210, eight."""
    workload = load(conversation(tmp_path), 4, format=TraceFormat.MOONCAKE_DELTA)
    first, _, second, third = workload.requests

    assert [r.prompt_tokens for r in (first, second, third)] == [600, 2400, 4210]
    assert [len(r.blocks) for r in (first, second, third)] == [1, 4, 8]
    assert first.blocks == (1,)
    assert second.blocks[:1] == first.blocks
    assert third.blocks[:4] == second.blocks
    assert len(set(third.blocks)) == 8


def test_a_session_whose_beginning_is_left_out_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="request 3 is a turn of session a, whose turn before is left out"):
        load(conversation(tmp_path), 2, skip=1)


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (line(timestamp=20, delay=5), "delay without a session_id: there is no turn to wait for"),
        (line(timestamp=20, session_id="b", delay=5), "a pause before the first turn of a session"),
        (line(timestamp=20, session_id=[1]), "session_id is [1], neither a word nor a whole number"),
        (line(session_id="a", delay=-1), "delay is -1; allowed is 0 .."),
        (line(timestamp=20, wait_for=["x"]), "wait_for: requests that wait for others than the turn before"),
        (line(timestamp=20, messages=[{}]), "messages: a prompt of messages has no length in tokens"),
        (line(timestamp=20, hash_ids={"a": 1}), "hash_ids is an object whose keys are not the places 0 .. 0"),
        (line(), "timestamp is missing, or the rows above lack it"),
    ],
)
def test_what_cannot_be_modelled_is_refused_with_the_reason(tmp_path: Path, bad: str, told: str) -> None:
    path = conversation(tmp_path, bad)

    with pytest.raises(UserError) as caught:
        load(path, 5)
    assert str(caught.value).startswith(f"{path}, line 5: {told}")


def test_keys_that_are_not_read_are_named(tmp_path: Path) -> None:
    path = trace(tmp_path, line(timestamp=0, priority=3, hash_ids=[1, 2]))

    assert load(path).notes == ("not read: priority",)


def test_the_size_of_a_block_follows_from_the_numbers_of_ids(tmp_path: Path) -> None:
    """130 tokens in 3 blocks: of 64, since 128 would make 2. 60 tokens in one would do for 64 or more."""
    path = trace(tmp_path, mooncake(0, tokens=60, ids=(1,)), mooncake(1, tokens=130, ids=(1, 2, 3)))

    workload = load(path, 2)
    assert [(r.blocks, r.block_tokens) for r in workload.requests] == [((), 64), ((1, 2), 64)]
    assert workload.notes == ("blocks have 64 tokens: the numbers of hash_ids say so",)


def test_numbers_of_ids_that_fit_no_size_are_refused_for_the_usual_one(tmp_path: Path) -> None:
    """60 tokens in 4 blocks are of 16; 1300 in 2 of 1024."""
    path = trace(tmp_path, mooncake(0, tokens=60, ids=(1, 2, 3, 4)), mooncake(1, tokens=1300, ids=(1, 2)))

    with pytest.raises(UserError, match="line 1: 4 hash_ids for input_length 60; 1 blocks of 512 tokens"):
        load(path, 2)


def test_a_single_short_row_has_blocks_of_the_usual_size(tmp_path: Path) -> None:
    assert load(trace(tmp_path, mooncake(tokens=9, ids=(1,)))).requests[0].block_tokens == 512
