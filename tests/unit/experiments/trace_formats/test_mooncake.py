"""Traces in Mooncake's format: what a row becomes, and how an invalid one is reported."""

from pathlib import Path

import pytest
from trace_files import load, mooncake, trace

from experiments.errors import UserError


def test_a_mooncake_row_keeps_its_full_blocks_only(tmp_path: Path) -> None:
    """1000 tokens are one block of 512 and a part of a second: ceil gives 2 ids, floor 1 block."""
    request = load(trace(tmp_path, mooncake(tokens=1000, ids=(7, 8)))).requests[0]

    assert (request.prompt_tokens, request.output_tokens) == (1000, 5)
    assert (request.blocks, request.block_tokens) == ((7,), 512)


def test_a_prompt_that_ends_with_its_block_keeps_them_all(tmp_path: Path) -> None:
    request = load(trace(tmp_path, mooncake(tokens=1024, ids=(7, 8)))).requests[0]

    assert request.blocks == (7, 8)


def test_a_key_may_be_a_value_too(tmp_path: Path) -> None:
    row = mooncake(tokens=1000, ids=(7, 8))
    (request,) = load(trace(tmp_path, row[:-1] + ', "name": "timestamp"}')).requests
    assert request == load(trace(tmp_path, row)).requests[0]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"timestamp": 9}', "input_length is missing"),
        (mooncake(timestamp=9)[:-1] + ', "input_length" : 7}', "the key 'input_length' is there twice"),
        (mooncake()[:-1] + ', "output_l\\u0065ngth": 7}', "the key 'output_length' is there twice"),
        (mooncake(timestamp=9)[:-1] + ', "x": 1, "x": 2}', "the key 'x' is there twice"),
        (mooncake(timestamp=9)[:-1] + ', "x": {"y": 1, "y": 2}}', "the key 'y' is there twice"),
        (mooncake(timestamp=10**400), "timestamp is a number of 401 digits; allowed is 0 .."),
        (mooncake(tokens=-(10**30)), "input_length is a negative number of 31 digits; allowed is 1 .."),
        (mooncake(timestamp=-1), "timestamp is -1; allowed is 0 .."),
        (mooncake(timestamp="9"), "timestamp is '9', not a number of ms"),
        (mooncake(tokens="many"), "input_length is 'many', not a whole number"),
        (mooncake(tokens=True), "input_length is True, not a whole number"),
        (mooncake(tokens=0), "input_length is 0; allowed is 1 .."),
        (mooncake(output=-3), "output_length is -3; allowed is 0 .."),
        (mooncake(ids="01"), "hash_ids is not a list of whole numbers"),
        (mooncake(ids=(0, -1)), "hash_ids is not a list of whole numbers"),
        (mooncake(ids=(0,)), "1 hash_ids for input_length 1000; 2 blocks of 512 tokens were expected"),
        (mooncake(timestamp=3), "timestamp is earlier than in the row above"),
    ],
)
def test_a_bad_mooncake_row_is_named_with_its_line(tmp_path: Path, line: str, told: str) -> None:
    path = trace(tmp_path, mooncake(timestamp=5), "", line)

    with pytest.raises(UserError) as caught:
        load(path)

    assert str(caught.value).startswith(f"{path}, line 3: {told}")
