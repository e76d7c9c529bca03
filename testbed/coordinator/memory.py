"""Whether the kernel has ended processes because memory ran out."""

from pathlib import Path


def _kills(counters: Path) -> int:
    """How many processes the kernel has ended for lack of memory since it started; 0 if it does not say."""
    try:
        lines = counters.read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


class MemoryKills:
    """Notes, from its making on, whether memory ran out, on the machine or in a control group."""

    def __init__(self, counters: Path = Path("/proc/vmstat")) -> None:
        self._counters = counters
        self._before = _kills(counters)

    def note(self) -> str:
        """What to add to the news of a death by SIGKILL: nothing if memory has been enough."""
        if _kills(self._counters) == self._before:
            return ""
        return " (out of memory: the kernel has ended processes since the run began; use fewer ranks)"
