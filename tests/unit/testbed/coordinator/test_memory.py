"""A death for lack of memory is told as one: the kernel counts them."""

from pathlib import Path

from testbed.coordinator.memory import MemoryKills


def test_a_kill_since_the_run_began_is_noted(tmp_path: Path) -> None:
    counters = tmp_path / "vmstat"
    counters.write_text("oom_kill_other 9\noom_kill 3\npgfault 12\n")
    kills = MemoryKills(counters)
    assert kills.note() == ""
    counters.write_text("oom_kill_other 9\noom_kill 4\npgfault 12\n")
    assert kills.note().startswith(" (out of memory: ")


def test_a_kernel_that_does_not_count_tells_nothing(tmp_path: Path) -> None:
    kills = MemoryKills(tmp_path / "missing")
    assert kills.note() == ""
