"""What a run of real layers found: whether first tokens and KV are those of the whole model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from testbed.record import RequestRow


def real_layers(rows: Sequence[RequestRow]) -> dict[str, Any] | None:
    """Return how many first tokens are those of the whole model, and the largest errors; None without any.

    `ties` are other tokens, whose logit is as high in the whole model but for `largest_gap`.
    """
    checked = [row for row in rows if row.token is not None]
    if not checked:
        return None
    others = [row for row in checked if row.token != row.expected_token]
    return {
        "requests": len(rows),
        "same_tokens": len(checked) - len(others),
        "other_tokens": len(others),
        "largest_gap": max((row.token_gap or 0.0 for row in others), default=0.0),
        "logit_error": max(row.logit_error or 0.0 for row in checked),
        "kv_error": max(row.kv_error or 0.0 for row in checked),
        "kv_bytes": sum(row.kv_bytes or 0 for row in checked),
    }


def real_layer_sentence(found: Mapping[str, Any]) -> str:
    """Say what `real_layers` found, without a full stop."""
    said = f"{found['same_tokens']} of {found['requests']} first tokens are those of the whole model"
    if found["other_tokens"]:
        gap = _error(found["largest_gap"])
        said += f", {found['other_tokens']} others have a logit that is up to {gap} lower"
    logits, kv = _error(found["logit_error"]), _error(found["kv_error"])
    megabytes = f"{found['kv_bytes'] / 1e6:,.1f} MB"
    return f"{said}; logits differ by up to {logits}, and {megabytes} of KV by up to {kv}"


def real_layer_lines(summary: Mapping[str, Any]) -> Iterator[str]:
    """Say it for each policy whose run had real layers."""
    for run in summary["runs"]:
        if run.get("real_layers"):
            yield f"{run['policy']}: {real_layer_sentence(run['real_layers'])}"


def _error(value: float | None) -> str:
    """An error for people. Infinite errors are null in a summary."""
    return "infinity" if value is None else f"{value:.2g}"
