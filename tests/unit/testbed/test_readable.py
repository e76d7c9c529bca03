"""Waiting for descriptors, of numbers that a process with many connections has, too."""

import os
import time
from collections.abc import Iterator

import pytest
from many_files import many_allowed, moved_high

from testbed.readable import readable


@pytest.fixture
def ends() -> Iterator[list[int]]:
    """The reading and the writing end of a pipe, which a test may close and take out."""
    with many_allowed():
        both = [moved_high(end) for end in os.pipe()]
        yield both
        for descriptor in both:
            os.close(descriptor)


def test_what_was_written_can_be_read(ends: list[int]) -> None:
    os.write(ends[1], b"x")
    assert readable(ends[0], 0)


def test_nothing_can_be_read_before_the_time_is_up(ends: list[int]) -> None:
    begin = time.monotonic()
    assert not readable(ends[0], 0.05)
    assert time.monotonic() - begin >= 0.05


def test_an_end_can_be_read(ends: list[int]) -> None:
    os.close(ends.pop())
    assert readable(ends[0], 0)
