"""Qwen-Bailian: what a row becomes, and how an invalid one is reported."""

from pathlib import Path

import pytest
from trace_files import bailian, load, trace

from experiments.errors import UserError
from experiments.trace_formats.formats import TraceFormat, detect_format

MS = 1_000_000


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
    """Ids stand for the content of a block: [7, 8] and [9, 8] share no KV, [7, 8] and [7, 8] do."""
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
        ({"hash_ids": 7}, "hash_ids is not a list of whole numbers"),
        ({"hash_ids": [7]}, "1 hash_ids for input_length 40; 3 blocks of 16 tokens were expected"),
        ({"hash_ids": [1, 2, 3, 4]}, "4 hash_ids for input_length 40; 3 blocks of 16 tokens were expected"),
        ({"type": ["text"]}, "type is ['text'], neither a word nor a whole number"),
        ({"timestamp": 4}, "timestamp is earlier than in the row above"),
    ],
)
def test_a_bad_row_of_bailian_is_named_with_its_line(
    tmp_path: Path, changes: dict[str, object], told: str
) -> None:
    path = trace(tmp_path, bailian(timestamp=5), "", bailian(**({"timestamp": 9} | changes)))

    with pytest.raises(UserError) as caught:
        load(path)

    assert str(caught.value).startswith(f"{path}, line 3: {told}")
