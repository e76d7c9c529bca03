"""What a rehearsal writes of its queues, and what it says of a file that it cannot write."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from controller.flow import Level
from testbed.cluster.namespaces import Namespaces
from testbed.cluster.rehearsal_inside import QueueWatch
from testbed.emulation.queues import PortCounters


class _Counted:
    """One port, whose queues have sent 100 bytes at each level."""

    def counters(self) -> dict[str, PortCounters]:
        count = len(Level)
        return {
            "h1->s1": PortCounters(
                sent_bytes=(100,) * count,
                backlog_bytes=(0,) * count,
                drops=(0,) * count,
                packets=(1,) * count,
            )
        }


def watched(path: Path, until: Callable[[QueueWatch], object]) -> QueueWatch:
    watch = QueueWatch(cast(Namespaces, _Counted()), str(path))
    watch.start()
    deadline = time.monotonic() + 10.0
    while not until(watch):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    watch.stop()
    return watch


def test_samples_are_lines_of_json(tmp_path: Path) -> None:
    watch = watched(tmp_path / "queues", lambda watch: watch.samples)
    lines = (tmp_path / "queues").read_text().splitlines()
    assert len(lines) == watch.samples
    assert json.loads(lines[0])["sent_bytes"] == {"h1->s1": [100] * len(Level)}
    assert watch.trouble is None


def test_a_disk_that_is_full_is_kept_in_mind() -> None:
    """Nothing can be written to /dev/full."""
    watch = watched(Path("/dev/full"), lambda watch: watch.trouble)
    assert watch.trouble is not None
    assert watch.trouble.strerror == "No space left on device"
    assert watch.samples == 0
