"""When the first tokens of real layers count as those of the whole model."""

import msgspec
from real_world import DENSE, real_job, request
from result_rows import request_row

from controller.pulse import Pause
from testbed.coordinator.token_checks import checks, token_checks, with_tokens
from workers.options import ComputeMode
from workers.protocol import Records, TokenCheck

RIGHT = TokenCheck(
    request=1, token=7, expected_token=7, gap=0.0, logit_error=0.001, kv_error=0.004, kv_bytes=1000
)


def changed(**fields: object) -> TokenCheck:
    return msgspec.structs.replace(RIGHT, **fields)


def oks(*tokens: TokenCheck, requests: int | None = None) -> list[bool]:
    """Whether tokens, logits and KV are within their bounds."""
    return [check.ok for check in checks(tokens, len(tokens) if requests is None else requests)]


def test_small_errors_are_allowed() -> None:
    assert oks(RIGHT, changed(logit_error=0.02, kv_error=0.05)) == [True, True, True]


def test_the_largest_error_of_any_request_counts() -> None:
    assert oks(RIGHT, changed(logit_error=0.021)) == [True, False, True]
    assert oks(RIGHT, changed(kv_error=0.051)) == [True, True, False]


def test_another_token_counts_if_the_allowed_error_can_decide() -> None:
    """Each of the two logits may be 0.02 off."""
    assert oks(changed(token=8, gap=0.04)) == [True, True, True]
    assert oks(changed(token=8, gap=0.041)) == [False, True, True]


def test_a_request_without_a_token_is_one_too_few() -> None:
    [tokens, *_] = checks([RIGHT], 4)
    assert (tokens.value, tokens.ok) == (0.25, False)
    assert oks(requests=2) == [False, False, False]


def records(*tokens: TokenCheck) -> Records:
    pause = Pause(begin_wall_ns=0, wall_ns=0)
    return Records(
        rank=4,
        sent=(),
        received=(),
        spans=(),
        progress=(),
        late_wakeups_ms=(),
        longest_pause=pause,
        tokens=tokens,
    )


def test_a_run_has_these_checks_only_if_its_ranks_compute_a_model() -> None:
    """Two requests, and one of their tokens is missing."""
    job = real_job(DENSE, [request(0, 24, ()), request(1, 24, ())], units=1, per_unit=2)
    [tokens, *_] = token_checks(job, [records(), records(RIGHT)])
    assert (tokens.value, tokens.ok) == (0.5, False)
    timed = msgspec.structs.replace(job.workers, compute=ComputeMode.TIMED)
    assert token_checks(msgspec.structs.replace(job, workers=timed), [records()]) == ()


def test_a_failed_check_says_where_to_look() -> None:
    assert "requests.parquet" in checks([changed(kv_error=1.0)], 1)[2].advice
    assert checks([RIGHT], 1)[2].advice == ""


def test_rows_get_the_results_of_their_requests() -> None:
    one, two = with_tokens([request_row(request=1), request_row(request=2)], [RIGHT])
    assert (one.token, one.expected_token, one.token_gap) == (7, 7, 0.0)
    assert (one.logit_error, one.kv_error, one.kv_bytes) == (0.001, 0.004, 1000)
    assert two == request_row(request=2)
