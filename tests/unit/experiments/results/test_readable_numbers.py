"""Numbers as text for people."""

import pytest

from experiments.results.readable_numbers import duration


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0.0, "0 s"),
        (1.2345, "1.23 s"),
        (123.4, "123 s"),
        (0.0456, "45.6 ms"),
        (0.99949, "999 ms"),
        (0.9996, "1.00 s"),
        (0.000789, "789 µs"),
        (12e-9, "12 ns"),
        (-0.25, "-250 ms"),
    ],
)
def test_a_duration_has_three_digits_and_a_unit(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text
