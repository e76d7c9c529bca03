"""What results say of real layers."""

import math

from result_rows import request_row

from experiments.json_text import finite
from experiments.results.real_layers import real_layer_lines, real_layer_sentence, real_layers
from testbed.record import RequestRow


def row(number: int, token: int, *, gap: float = 0.0, error: float = 0.001) -> RequestRow:
    """A request whose first token has to be 5, with 2 MB of KV."""
    return request_row(
        request=number,
        token=token,
        expected_token=5,
        token_gap=gap,
        logit_error=error,
        kv_error=4 * error,
        kv_bytes=2_000_000,
    )


def test_equal_tokens_are_counted_and_the_largest_errors_are_told() -> None:
    found = real_layers([row(0, 5), row(1, 5, error=0.002)])
    assert found is not None
    assert real_layer_sentence(found) == (
        "2 of 2 first tokens are those of the whole model; logits differ by up to 0.002,"
        " and 4.0 MB of KV by up to 0.008"
    )


def test_other_tokens_are_told_with_how_close_they_are() -> None:
    found = real_layers([row(0, 5), row(1, 6, gap=0.0005), request_row(request=2)])
    assert found is not None
    assert (found["requests"], found["same_tokens"], found["other_tokens"]) == (3, 1, 1)
    assert real_layer_sentence(found).startswith(
        "1 of 3 first tokens are those of the whole model, 1 others have a logit that is up to 0.0005 lower;"
    )


def test_infinite_errors_can_be_told() -> None:
    """`summary.json` has null for them."""
    found = finite(real_layers([row(0, 5, error=math.inf)]))
    assert real_layer_sentence(found).endswith(
        "logits differ by up to infinity, and 2.0 MB of KV by up to infinity"
    )


def test_a_run_without_real_layers_says_nothing() -> None:
    assert real_layers([request_row(request=0)]) is None
    assert list(real_layer_lines({"runs": [{"policy": "fair", "real_layers": None}]})) == []


def test_each_policy_has_a_line() -> None:
    lines = list(real_layer_lines({"runs": [{"policy": "fair", "real_layers": real_layers([row(0, 5)])}]}))
    assert [line.split(":")[0] for line in lines] == ["fair"]
