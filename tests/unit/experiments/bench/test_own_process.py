"""A function in a process of its own."""

import os

import pytest

from experiments.bench.own_process import in_own_process
from testbed.fabric import RunFailed


def test_it_returns_or_raises_what_the_function_does() -> None:
    assert in_own_process("a number", int, "7") == 7
    assert in_own_process("a process id", os.getpid) != os.getpid()
    with pytest.raises(ValueError, match="invalid literal"):
        in_own_process("no number", int, "x")


def test_a_process_that_dies_is_told_instead_of_waited_for() -> None:
    with pytest.raises(RunFailed, match="servers-8 under fair: its process died"):
        in_own_process("servers-8 under fair", os._exit, 9)
