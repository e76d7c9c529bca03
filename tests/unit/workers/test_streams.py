"""Streams on a CPU, where work is over when its call returns. tests/gpu/ has those of a GPU."""

import pytest
import torch
from worker_groups import CPU

from workers.streams import Stream, settle


def test_what_was_put_on_a_stream_is_over_at_its_end() -> None:
    target = torch.zeros(4)
    with Stream(CPU).here():
        target += 1
    assert target.tolist() == [1, 1, 1, 1]
    settle(CPU)


def test_an_error_on_a_stream_is_that_of_its_work() -> None:
    with pytest.raises(ValueError, match="no such block"), Stream(CPU).here():
        raise ValueError("no such block")
