"""BurstGPT, Qwen-Bailian and Azure 2024: what a row becomes, and how a bad one is named."""

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.errors import UserError
from experiments.scenario.reading import load_scenario, override
from experiments.scenario.workload import WorkloadKind
from experiments.trace_formats import azure
from experiments.trace_formats.trace_file import TraceFormat, detect_format
from experiments.workloads import from_trace as traces
from experiments.workloads.workload import Workload

MS = 1_000_000

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens"
BURSTGPT = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type"
NEWER_BURSTGPT = (
    "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type"
)


def trace(folder: Path, *lines: str) -> Path:
    path = folder / "trace"
    path.write_text("\n".join(lines) + "\n")
    return path


def load(path: Path, requests: int = 1, **keys: Any) -> Workload:
    return traces.load(path, detect_format(path), requests=requests, **keys)


def bailian(**changes: object) -> str:
    row: dict[str, object] = {
        "chat_id": 1,
        "parent_chat_id": -1,
        "timestamp": 0.0,
        "input_length": 40,
        "output_length": 5,
        "type": "text",
        "turn": 1,
        "hash_ids": [7, 8, 9],
    }
    return json.dumps({key: value for key, value in (row | changes).items() if value is not None})


# --- Azure 2024 -------------------------------------------------------------------------------------


def test_times_of_azure_2024_have_a_zone_and_not_always_a_fraction(tmp_path: Path) -> None:
    """From 0.009930 s to 2 s are 1.990070 s."""
    path = trace(
        tmp_path, AZURE, "2024-05-10 00:00:00.009930+00:00,2162,5", "2024-05-10 00:00:02+00:00,2399,6"
    )

    first, second = load(path, 2).requests

    assert (first.prompt_tokens, first.output_tokens) == (2162, 5)
    assert (second.arrival_ns, second.prompt_tokens) == (1_990_070_000, 2399)


def test_times_in_another_zone_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"line 2: TIMESTAMP is '2024-05-10 00:00:00\+02:00'"):
        load(trace(tmp_path, AZURE, "2024-05-10 00:00:00+02:00,10,1"))


# --- BurstGPT ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "lines"),
    [
        (BURSTGPT, ["5,ChatGPT,472,18,490,Conversation log", "45,GPT-4,1087,230,1317,API log"]),
        (
            NEWER_BURSTGPT,
            ["5,a,3,ChatGPT,472,18,490,Conversation log", "45.0,b,9,GPT-4,1087,230,1317,API log"],
        ),
    ],
)
def test_columns_of_burstgpt_are_found_by_their_names(tmp_path: Path, header: str, lines: list[str]) -> None:
    path = trace(tmp_path, header, *lines)

    workload = load(path, 2)

    assert detect_format(path) is TraceFormat.BURSTGPT
    first, second = workload.requests
    assert (first.prompt_tokens, first.output_tokens, first.blocks) == (472, 18, ())
    # 1087 tokens are two blocks of 512, which nobody shares.
    assert (second.arrival_ns, second.blocks) == (40_000 * MS, (0, 1))
    assert azure.NO_REUSE in workload.notes[0]


def test_requests_of_burstgpt_that_failed_are_left_out_and_not_counted(tmp_path: Path) -> None:
    path = trace(
        tmp_path,
        BURSTGPT,
        "1,ChatGPT,0,0,0,API log",
        "2,ChatGPT,30,3,33,API log",
        "4,ChatGPT,40,0,40,API log",
        "7,ChatGPT,50,5,55,API log",
    )

    assert [r.prompt_tokens for r in load(path, 2).requests] == [30, 50]
    with pytest.raises(UserError, match="asks for 3 rows, but the file has 2"):
        load(path, 3)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("9,ChatGPT,1,1,2", "5 values, expected 6"),
        ("soon,ChatGPT,1,1,2,API log", "Timestamp is 'soon', not a number of seconds"),
        ("-1,ChatGPT,1,1,2,API log", "Timestamp is '-1', not a number of seconds"),
        ("99999999999,ChatGPT,1,1,2,API log", "Timestamp is 99999999999; allowed is 0 .."),
        ("9,ChatGPT,0,1,1,API log", "Request tokens is 0; allowed is 1 .."),
        ("9,ChatGPT,1.5,1,2,API log", "Request tokens is '1.5', not a whole number"),
        ("9,ChatGPT,1,-1,2,API log", "Response tokens is -1; allowed is 0 .."),
        ("4,ChatGPT,1,1,2,API log", "Timestamp is before that of the row above"),
    ],
)
def test_a_bad_row_of_burstgpt_is_named_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    path = trace(tmp_path, BURSTGPT, "5,ChatGPT,1,1,2,API log", line)

    with pytest.raises(UserError) as caught:
        load(path)

    assert str(caught.value).startswith(f"{path}, line 3: {told}")


# --- Qwen-Bailian -----------------------------------------------------------------------------------


def test_a_row_of_bailian_has_blocks_of_16_tokens_and_keeps_the_full_ones(tmp_path: Path) -> None:
    """40 tokens are two blocks of 16 and half of a third."""
    path = trace(tmp_path, bailian(), bailian(timestamp=61.114, input_length=48))

    first, second = load(path, 2).requests

    assert detect_format(path) is TraceFormat.BAILIAN
    assert (first.prompt_tokens, first.output_tokens, first.block_tokens) == (40, 5, 16)
    assert (len(first.blocks), len(second.blocks)) == (2, 3)
    assert second.blocks[:2] == first.blocks
    assert second.arrival_ns == 61_114 * MS


def test_the_same_text_after_another_beginning_is_another_block(tmp_path: Path) -> None:
    """Ids are of what is in a block: [7, 8] and [9, 8] share no KV, [7, 8] and [7, 8] do."""
    path = trace(
        tmp_path,
        *[bailian(input_length=32, hash_ids=ids) for ids in ([7, 8], [9, 8], [7, 8], [7, 7])],
    )

    blocks = [request.blocks for request in load(path, 4).requests]

    assert blocks[0] == blocks[2]
    assert blocks[1][1] not in blocks[0]
    assert blocks[3][0] == blocks[0][0]
    assert len(set(blocks[3])) == 2


@pytest.mark.parametrize("ids", [[7, 8], [7, 8, 9]])
def test_a_last_block_that_is_not_full_may_have_an_id_or_none(tmp_path: Path, ids: list[int]) -> None:
    assert len(load(trace(tmp_path, bailian(hash_ids=ids))).requests[0].blocks) == 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"timestamp": None}, "timestamp is missing"),
        ({"timestamp": "9"}, "timestamp is '9', not a number of seconds"),
        ({"timestamp": -1}, "timestamp is -1; allowed is 0 .."),
        ({"timestamp": float("nan")}, "timestamp is nan; allowed is 0 .."),
        ({"input_length": 0}, "input_length is 0; allowed is 1 .."),
        ({"output_length": 1.5}, "output_length is 1.5, not a whole number"),
        ({"hash_ids": None}, "hash_ids is missing"),
        ({"hash_ids": [7]}, "1 hash_ids for input_length 40; 3 blocks of 16 tokens were expected"),
        ({"hash_ids": [1, 2, 3, 4]}, "4 hash_ids for input_length 40; 3 blocks of 16 tokens were expected"),
        ({"type": ["text"]}, "type is ['text'], neither a word nor a whole number"),
        ({"timestamp": 4}, "timestamp is before that of the row above"),
    ],
)
def test_a_bad_row_of_bailian_is_named_with_its_line(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    path = trace(tmp_path, bailian(timestamp=5), "", bailian(**({"timestamp": 9} | changes)))

    with pytest.raises(UserError) as caught:
        load(path)

    assert str(caught.value).startswith(f"{path}, line 3: {told}")


# --- classes ----------------------------------------------------------------------------------------


def test_a_column_can_say_the_class_of_a_request(tmp_path: Path) -> None:
    path = trace(tmp_path, *[bailian(type=kind, turn=i) for i, kind in enumerate(("text", "file", "text"))])

    by_type, by_turn = load(path, 3, class_from="type"), load(path, 3, class_from="turn")

    assert [r.slo_class for r in by_type.requests] == ["text", "file", "text"]
    assert by_type.notes[-1] == "SLO classes are those of type: text 2, file 1"
    assert [r.slo_class for r in by_turn.requests] == ["0", "1", "2"]


def test_a_column_with_a_space_is_one_too(tmp_path: Path) -> None:
    path = trace(tmp_path, BURSTGPT, "5,GPT-4,10,1,11,API log")

    assert load(path, class_from="Log Type").requests[0].slo_class == "API log"
    assert load(path, class_from="Model").requests[0].slo_class == "GPT-4"


def test_a_column_that_is_not_there_is_refused_with_those_that_are(tmp_path: Path) -> None:
    path = trace(tmp_path, bailian(), bailian(type=None))

    with pytest.raises(UserError, match=r"'tipe' is no column of a bailian trace .*known: 'type', 'turn'"):
        load(path, class_from="tipe")
    with pytest.raises(UserError, match="request 2: nothing in 'type'"):
        load(path, skip=1, class_from="type")


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ([BURSTGPT, "5,GPT-4,10,1,11,API log"], WorkloadKind.BURSTGPT),
        ([bailian()], WorkloadKind.BAILIAN),
    ],
)
def test_a_path_beside_a_generated_kind_means_that_trace(
    tmp_path: Path, lines: list[str], kind: WorkloadKind
) -> None:
    path = trace(tmp_path, *lines)

    scenario = load_scenario("quickstart", [override(f"workload.path={path}")])

    assert scenario.workload.kind is kind


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (["workload.class_from=type"], "workload.class_from: names a column of a trace"),
        (
            ["workload.class_from=type", "workload.path=x", "workload.kind=bailian", "workload.class=y"],
            "only one",
        ),
        (["workload.kind=burstgpt"], "burstgpt needs workload.path"),
        (["workload.warmup=48"], "workload.warmup: 48 of 48 requests"),
        (["workload.arrivals=bursty"], "workload.dispersion: arrivals: bursty needs it"),
        (["workload.dispersion=3"], "workload.dispersion: has a meaning with arrivals: bursty only"),
        (["workload.burst_s=3"], "workload.burst_s: has a meaning with arrivals: bursty only"),
    ],
)
def test_keys_that_do_not_go_together_are_refused(settings: list[str], told: str) -> None:
    with pytest.raises(UserError) as caught:
        load_scenario("quickstart", [override(text) for text in settings])
    assert told in str(caught.value)
