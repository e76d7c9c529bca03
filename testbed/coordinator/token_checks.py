"""First tokens of real layers: whether the right bytes came to the right place."""

from collections.abc import Iterable, Sequence

import msgspec

from testbed.coordinator.real_model import is_real
from testbed.job import Job
from testbed.record import Check, RequestRow
from workers.protocol import Records, TokenCheck

LOGIT_BOUND = 0.02
"""The largest difference of a logit. Logits have a magnitude of about 1; rounding sums and KV to 16 bits on
the way gives a tenth of this (docs/concepts/real-layers.md)."""

KV_BOUND = 0.05
"""The largest difference of an element of KV, which has a magnitude of about 1 (a key up to 5 or so)."""

_ADVICE = (
    "a transfer or a collective brought wrong bytes, or the right ones to the wrong place; requests.parquet"
    " has the errors of each request"
)


def with_tokens(rows: Iterable[RequestRow], tokens: Iterable[TokenCheck]) -> tuple[RequestRow, ...]:
    """The rows of requests, with what is known of their first tokens."""
    known = {check.request: check for check in tokens}
    return tuple(
        row
        if (check := known.get(row.request)) is None
        else msgspec.structs.replace(
            row,
            token=check.token,
            expected_token=check.expected_token,
            token_gap=check.gap,
            logit_error=check.logit_error,
            kv_error=check.kv_error,
            kv_bytes=check.kv_bytes,
        )
        for row in rows
    )


def token_checks(job: Job, records: Iterable[Records]) -> tuple[Check, ...]:
    """The checks of a run of `job`, if its ranks computed a model."""
    tokens = [check for record in records for check in record.tokens]
    return checks(tokens, len(job.requests)) if is_real(job) else ()


def checks(tokens: Sequence[TokenCheck], requests: int) -> tuple[Check, ...]:
    """The checks of a run of real layers with so many `requests`.

    A token counts as that of the whole model, too, if their logits are so close there that an allowed error
    can decide between them: a tie.
    """
    right = sum(map(_is_right, tokens))
    logit_error = max((check.logit_error for check in tokens), default=None)
    kv_error = max((check.kv_error for check in tokens), default=None)
    return (
        _check("first tokens of the whole model", right / requests, ">= 1", "of requests", right == requests),
        _check(
            "largest error of a logit",
            logit_error,
            f"<= {LOGIT_BOUND:g}",
            "",
            logit_error is not None and logit_error <= LOGIT_BOUND,
        ),
        _check(
            "largest error of an element of KV",
            kv_error,
            f"<= {KV_BOUND:g}",
            "",
            kv_error is not None and kv_error <= KV_BOUND,
        ),
    )


def _is_right(check: TokenCheck) -> bool:
    return check.gap <= 2 * LOGIT_BOUND


def _check(name: str, value: float | None, bound: str, unit: str, ok: bool) -> Check:
    return Check(name=name, value=value, bound=bound, unit=unit, ok=ok, advice="" if ok else _ADVICE)
