"""Traces of other simulators and benchmarks: what a row becomes, and what is refused."""

import json
from pathlib import Path

import pytest
from trace_files import load, trace

from experiments.errors import UserError
from experiments.trace_formats.formats import TraceFormat, detect_format, reader_of
from experiments.trace_formats.rows import Guess, TraceRow
from experiments.trace_formats.tally import NO_REUSE

S = 1_000_000_000
MS = 1_000_000
SPLITWISE = "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size"
VIDUR = "arrived_at,num_prefill_tokens,num_decode_tokens"


def rows(path: Path) -> list[TraceRow]:
    return list(reader_of(path, detect_format(path)).rows(path))


def test_vidur_counts_seconds(tmp_path: Path) -> None:
    """0.05200000000000001 s is 52 ms, and what is below a nanosecond is cut off."""
    path = trace(tmp_path, VIDUR, "0.0,4808,10", "0.05200000000000001,3180,8", "1e1,7,1.0")

    assert detect_format(path) is TraceFormat.VIDUR
    workload = load(path, 3)
    assert [r.arrival_ns for r in workload.requests] == [0, 52 * MS, 10 * S]
    assert [(r.prompt_tokens, r.output_tokens) for r in workload.requests] == [(4808, 10), (3180, 8), (7, 1)]
    assert workload.notes == (NO_REUSE,)


def test_lengths_alone_need_arrivals_that_are_drawn(tmp_path: Path) -> None:
    path = trace(tmp_path, "num_prefill_tokens,num_decode_tokens,pd_ratio,who", "3772,54,69.8,me")

    with pytest.raises(UserError, match=r"no arrival times: draw them \(workload.arrivals: poisson"):
        load(path)
    drawn = load(path, times_needed=False)
    assert (drawn.requests[0].prompt_tokens, drawn.requests[0].arrival_ns) == (3772, 0)
    assert drawn.notes == (NO_REUSE, "not read: who")


def test_cells_may_be_quoted_and_the_index_of_pandas_is_no_column(tmp_path: Path) -> None:
    path = trace(tmp_path, '"","arrived_at","num_prefill_tokens","num_decode_tokens"', '"0","0.5","48","10"')

    assert detect_format(path) is TraceFormat.VIDUR
    workload = load(path)
    assert (workload.requests[0].prompt_tokens, workload.requests[0].output_tokens) == (48, 10)
    assert workload.notes == (NO_REUSE,)


def test_splitwise_has_applications_as_classes(tmp_path: Path) -> None:
    path = trace(tmp_path, SPLITWISE, "0,2,7,0.5,1,100,20", "1,2,8,0.75,1,200,30")

    assert detect_format(path) is TraceFormat.SPLITWISE
    first, second = load(path, 2, class_from="application_id").requests
    assert (first.prompt_tokens, first.output_tokens, first.slo_class) == (100, 20, "7")
    assert (second.arrival_ns, second.slo_class) == (250 * MS, "8")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("0,0,7,0.5,1,100,20", "request_type is 0; only 2 is modelled"),
        ("0,2,7,0.5,4,100,20", "batch_size is 4; only 1 is modelled"),
        ("0,2,7,-1,1,100,20", "arrival_timestamp is '-1', not a number of seconds"),
        ("0,2,7,1,1,0,20", "prompt_size is 0; allowed is 1 .."),
    ],
)
def test_a_bad_row_of_splitwise_is_named_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load(trace(tmp_path, SPLITWISE, line))

    assert str(caught.value).startswith(f"{tmp_path / 'trace'}, line 2: {told}")


def test_llmservingsim_counts_nanoseconds_in_columns_too(tmp_path: Path) -> None:
    path = trace(
        tmp_path, "input_toks\toutput_toks\tarrival_time_ns", "10\t70\t46926808", "22\t104\t346926809"
    )

    assert detect_format(path) is TraceFormat.LLMSERVINGSIM
    first, second = load(path, 2).requests
    assert (first.prompt_tokens, first.output_tokens) == (10, 70)
    assert second.arrival_ns == 300_000_001


def test_prompts_of_llmservingsim_share_what_their_tokens_have_in_common(tmp_path: Path) -> None:
    """Blocks of 16 tokens: 40 tokens have two full ones. The third prompt differs from its first token on."""
    prompts = ([*range(40)], [*range(20), *range(50, 70)], [99, *range(1, 40)])
    path = trace(
        tmp_path,
        *(
            json.dumps({"input_toks": 40, "output_toks": 1, "arrival_time_ns": i, "input_tok_ids": prompt})
            for i, prompt in enumerate(prompts)
        ),
    )

    first, second, third = load(path, 3).requests
    assert first.block_tokens == 16
    assert len(first.blocks) == len(second.blocks) == len(third.blocks) == 2
    assert first.blocks[0] == second.blocks[0]
    assert len({*first.blocks, *second.blocks, *third.blocks}) == 5


def session(**changes: object) -> str:
    calls = [
        {"input_toks": 100, "output_toks": 5, "tool_duration_ns": 7},
        {"input_toks": 150, "output_toks": 6, "tool_duration_ns": 0},
    ]
    return json.dumps({"session_id": "s0", "arrival_time_ns": 500, "sub_requests": calls} | changes)


def test_calls_of_a_session_wait_for_each_other_and_for_the_tool(tmp_path: Path) -> None:
    path = trace(tmp_path, '{"input_toks": 9, "output_toks": 1, "arrival_time_ns": 400}', session())

    alone, first, second = load(path, 3).requests
    assert (alone.after, alone.arrival_ns) == (None, 0)
    assert (first.after, first.arrival_ns, first.prompt_tokens) == (None, 100, 100)
    assert (second.after, second.pause_ns, second.prompt_tokens) == (1, 7, 150)
    assert second.arrival_ns == 107  # at the earliest


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (session(sub_requests=[]), "sub_requests is not a list of one or more JSON objects"),
        (session(sub_requests=[{"input_toks": 1}]), "sub_requests[0]: output_toks is missing"),
        (session(session_id="taken"), "session_id taken is listed twice"),
        (
            '{"input_toks": 2, "output_toks": 1, "arrival_time_ns": 900, "input_tok_ids": [1]}',
            "1 input_tok_ids",
        ),
        (session(arrival_time_ns=1), "arrival_time_ns is earlier than in the row above"),
    ],
)
def test_a_bad_row_of_llmservingsim_is_named_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(UserError) as caught:
        load(trace(tmp_path, session(session_id="taken"), line))

    assert str(caught.value).startswith(f"{tmp_path / 'trace'}, line 2: {told}")


def test_aibrix_sends_the_requests_of_a_line_at_once(tmp_path: Path) -> None:
    """Without its length, the prompt of 9 bytes counts as 3 tokens: a quarter of them, rounded up."""
    path = trace(
        tmp_path,
        json.dumps({"timestamp": 10, "requests": [{"prompt_length": 50, "output_length": 7, "prompt": "x"}]}),
        json.dumps({"timestamp": 12, "requests": []}),
        json.dumps({"timestamp": 15, "requests": [{"prompt": "nine char"}, {"prompt_length": 2}]}),
    )

    assert detect_format(path) is TraceFormat.AIBRIX
    found = rows(path)
    assert [(r.time_ns, r.prompt_tokens, r.output_tokens) for r in found] == [
        (10 * MS, 50, 7),
        (15 * MS, 3, 1),
        (15 * MS, 2, 1),
    ]
    assert [r.guesses for r in found] == [(), (Guess.PROMPT, Guess.OUTPUT), (Guess.OUTPUT,)]
    notes = load(path, 3).notes
    assert any("prompt lengths are estimated" in note and "(1 of 3 requests)" in note for note in notes)
    assert any("length of the answer" in note and "(2 of 3 requests)" in note for note in notes)


def said(*texts: str) -> dict[str, object]:
    names = ("human", "gpt")
    return {"conversations": [{"from": names[i % 2], "value": text} for i, text in enumerate(texts)]}


@pytest.mark.parametrize("indent", [None, 1])
def test_a_conversation_is_one_request_up_to_its_first_answer(tmp_path: Path, indent: int | None) -> None:
    """8 and 5 bytes are 2 tokens each. The second conversation has no answer, and is left out."""
    path = trace(
        tmp_path,
        json.dumps(
            [
                said("12345678", "12345", "later"),
                said("unanswered"),
                {"messages": [{"role": "system", "content": "1234"}, {"role": "user", "content": "1234"}]},
                {
                    "messages": [
                        {"role": "system", "content": "1234"},
                        {"role": "user", "content": "äöü,"},
                        {"role": "assistant", "content": "12"},
                    ]
                },
            ],
            indent=indent,
            ensure_ascii=False,
        ),
    )

    assert detect_format(path) is TraceFormat.SHAREGPT
    # 4 bytes, and 3 letters of 2 bytes with a comma: 11 bytes are 3 tokens.
    assert [(r.prompt_tokens, r.output_tokens) for r in rows(path)] == [(2, 2), (3, 1)]
    assert all(r.time_ns is None for r in rows(path))
    with pytest.raises(UserError, match="no arrival times"):
        load(path)


def test_prompts_with_answers_or_their_lengths_are_read_by_the_line(tmp_path: Path) -> None:
    path = trace(
        tmp_path,
        '{"prompt": "12345678", "completion": "1234"}',
        '{"prompt": "1234", "output_tokens": 20}',
        '{"prompt": "1234"}',
    )

    found = rows(path)
    assert [(r.prompt_tokens, r.output_tokens) for r in found] == [(2, 1), (1, 20), (1, 1)]
    assert found[2].guesses == (Guess.PROMPT, Guess.OUTPUT)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"prompt": "a"}, 7]', "item 2: not a JSON object"),
        ('[{"prompt": "a"}', "after item 1: not JSON, or the array does not end"),
        ('[{"prompt": "a"}, {"prompt": "a", "prompt": "b"}]', "item 2: the key 'prompt' is there twice"),
        ('[{"prompt": 1}]', "item 1: prompt is not a text"),
        ('[{"conversations": [{"from": "human"}]}]', "item 1: conversations[0] has no text as its 'value'"),
        ('[{"id": 1}]', "item 1: none of conversations, messages, prompt"),
    ],
)
def test_a_bad_item_of_an_array_is_named(tmp_path: Path, text: str, told: str) -> None:
    path = trace(tmp_path, text)

    with pytest.raises(UserError) as caught:
        rows(path)
    assert told in str(caught.value)


def test_an_array_larger_than_a_piece_is_read_to_its_end(tmp_path: Path) -> None:
    """Three megabytes in one line, and a text that does not end with a piece."""
    path = trace(tmp_path, json.dumps([{"prompt": "x" * 30_000, "output_tokens": i} for i in range(100)]))

    assert [r.output_tokens for r in rows(path)] == [*range(100)]
