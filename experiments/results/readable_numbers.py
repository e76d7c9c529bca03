"""Numbers as text for people: with a fitting unit, or a dash if there is no number."""

from typing import Any

NOTHING = "-"


def duration(seconds: float | None) -> str:
    """Return three significant digits with a fitting unit: "1.23 s", "45.6 ms", "789 µs", "12 ns"."""
    if seconds is None:
        return NOTHING
    for factor, unit in ((1.0, "s"), (1e3, "ms"), (1e6, "µs")):
        value = seconds * factor
        if abs(value) >= 0.9995:
            decimals = 2 if abs(value) < 9.995 else 1 if abs(value) < 99.95 else 0
            return f"{value:.{decimals}f} {unit}"
    return f"{seconds * 1e9:.0f} ns" if seconds else "0 s"


def share(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f} %"


def pruned_in_words(counts: dict[str, Any]) -> str:
    """Describe the `counts` of a run: "7 of 48 requests were pruned, 2 of them until their end"."""
    return (
        f"{counts['pruned']} of {counts['arrived']} requests were pruned,"
        f" {counts['ended_pruned']} of them until their end"
    )


def check_value(check: dict[str, Any]) -> str:
    """Return the measured value of a check with its unit, or "not measured"."""
    if check["value"] is None:
        return "not measured"
    return f"{check['value']:.4g} {check['unit']}".strip()
