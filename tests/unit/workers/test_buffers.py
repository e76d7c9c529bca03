"""Buffers that are used again."""

from workers.buffers import Buffers


def test_a_buffer_that_was_given_back_is_taken_again() -> None:
    buffers = Buffers()
    first = buffers.take(100)
    buffers.give(first)
    assert buffers.take(50) is first
    assert buffers.take(50) is not first


def test_a_larger_buffer_takes_the_place_of_a_smaller_one() -> None:
    """So there are never more than were taken at once."""
    buffers = Buffers()
    small = buffers.take(10)
    buffers.give(small)
    large = buffers.take(1000)
    buffers.give(large)
    assert len(large) == 1000
    assert buffers.take(10) is large
    assert buffers.take(10) is not small


def test_buffers_that_are_taken_at_once_are_different() -> None:
    buffers = Buffers()
    first, second = buffers.take(10), buffers.take(10)
    assert first.data_ptr() != second.data_ptr()
