"""A failure during a run ends it at once, with a message that names the cause."""

import time
from collections.abc import Callable
from pathlib import Path

import emulated_world as world
import psutil
import pytest

from controller.flow import Stage
from testbed.fabric import RunFailed, RunProgress
from testbed.job import Job
from testbed.topology import star

# --- wrong bytes --------------------------------------------------------------------------------

LYING_LANE = """
    import workers.lanes

    honest = workers.lanes.SendLane.__init__

    def init(self, name, group, staging, *rest):
        honest(self, name, group, Liar(staging, "a/1") if name == "S3.0-2.0" else staging, *rest)

    workers.lanes.SendLane.__init__ = init
"""

LYING_MEMBER = """
    import workers.collectives

    honest = workers.collectives.CollectiveGroup.__init__

    def init(self, name, group, members, rank, payloads, *rest, **options):
        lie = Liar(payloads, "p0.b0.l1.dispatch.p0.ep0/0") if rank == 0 else payloads
        honest(self, name, group, members, rank, lie, *rest, **options)

    workers.collectives.CollectiveGroup.__init__ = init
"""


def _start_ranks_with(code: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change code of the ranks: the process they are forked from imports `sitecustomize` at its start."""
    (directory / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(directory))


def _teach_to_lie(lie: str, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flip a bit in one byte of what is sent."""
    _start_ranks_with(
        f"""\
import sys

if "workers.zygote" in sys.orig_argv:

    class Liar:
        def __init__(self, payloads, lie):
            self.payloads, self.lie = payloads, lie

        def __getattr__(self, name):
            return getattr(self.payloads, name)

        def source(self, name, size_bytes):
            payload = self.payloads.source(name, size_bytes)
            if name == self.lie:
                payload = payload.clone()
                payload[7] ^= 1
            return payload
{lie}""",
        directory,
        monkeypatch,
    )


def test_a_wrong_byte_in_a_lane_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _teach_to_lie(LYING_LANE, tmp_path, monkeypatch)
    job = world.micro_job(
        world.flow("honest", "h2->h3", 5e4, start_s=0.1, stage=Stage.P2D),
        world.flow("a", "h1->h3", 5e4, start_s=0.3, stage=Stage.P2D),
        servers=3,
        mbps=30,
    )
    with pytest.raises(RunFailed, match=r"rank 2: WrongPayload: a/1: 1 of 16384 bytes are wrong, .* at 7"):
        world.run(job)


def test_a_wrong_byte_in_a_collective_fails_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _teach_to_lie(LYING_MEMBER, tmp_path, monkeypatch)
    job = world.serving_job(star(servers=5, nic_bps=30_000_000))
    with pytest.raises(
        RunFailed, match=r"rank 1: WrongPayload: p0\.b0\.l1\.dispatch\.p0\.ep0: wrong bytes from rank 0"
    ):
        world.run(job)


# --- something dies -----------------------------------------------------------------------------


def _endless() -> Job:
    """A flow that takes half a minute, and a short one beside it."""
    return world.micro_job(
        world.flow("a", "h1->h3", 30 * 20e6 / 8, start_s=0.1, stage=Stage.P2D),
        world.flow("b", "h2->h3", 5e4, start_s=0.1, stage=Stage.P2D),
        servers=3,
        mbps=20,
    )


class Assassin:
    """Kills a process of the sandbox once the run is under way; records when, and all its processes."""

    def __init__(self, choose: Callable[[list[psutil.Process]], psutil.Process]) -> None:
        self._choose = choose
        self.struck_s: float | None = None
        self.witnesses: list[psutil.Process] = []

    def __call__(self, progress: RunProgress) -> None:
        if progress.phase == "running" and self.struck_s is None:
            self.witnesses = psutil.Process().children(recursive=True)
            self.struck_s = time.monotonic()
            self._choose(self.witnesses).kill()


def _command(process: psutil.Process) -> list[str]:
    """Its command line, which is empty if it has ended since it was listed."""
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def _running(module: str) -> Callable[[list[psutil.Process]], psutil.Process]:
    return lambda family: next(p for p in family if _command(p)[-2:-1] == [module])


def _second_rank(family: list[psutil.Process]) -> psutil.Process:
    """Rank 1. The process that imported torch forks the ranks in order."""
    (zygote,) = (p for p in family if _command(p)[-1:] == ["workers.zygote"] and len(p.children()) == 3)
    return sorted(zygote.children(), key=lambda p: (p.create_time(), p.pid))[1]


def _switch(family: list[psutil.Process]) -> psutil.Process:
    return next(p for p in family if _command(p)[:1] and "ovs-vswitchd" in _command(p)[0])


@pytest.mark.parametrize(
    ("victim", "obituary"),
    [
        pytest.param(_second_rank, r"rank 1 ended with signal 9", id="rank"),
        pytest.param(_running("controller.ryu_app"), r"the controller ended with signal 9", id="controller"),
        pytest.param(_switch, r"ovs-vswitchd has ended \(signal 9\)", id="ovs-vswitchd"),
    ],
)
def test_a_death_ends_the_run_within_seconds(
    victim: Callable[[list[psutil.Process]], psutil.Process], obituary: str
) -> None:
    assassin = Assassin(victim)
    with pytest.raises(RunFailed, match=obituary):
        world.run(_endless(), assassin)
    assert assassin.struck_s is not None
    assert time.monotonic() - assassin.struck_s < 10
    _, alive = psutil.wait_procs(assassin.witnesses, timeout=10)
    assert alive == []


# --- something is slow --------------------------------------------------------------------------


def test_a_rank_that_is_slow_to_finish_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its peers finish long before it and must stay.

    It would take their closed connections for a failure of its lanes, and their end for a crash.
    """
    _start_ranks_with(
        """
import sys
import time

if "workers.zygote" in sys.orig_argv:
    import workers.rank

    prompt = workers.rank.Rank._finish

    def slow(self, evidence):
        if self._config.rank == 1:
            time.sleep(2.0)
        prompt(self, evidence)

    workers.rank.Rank._finish = slow
""",
        tmp_path,
        monkeypatch,
    )
    job = world.micro_job(
        world.flow("a", "h1->h2", 5e4, start_s=0.1, stage=Stage.P2D),
        world.flow("b", "h2->h3", 5e4, start_s=0.1, stage=Stage.P2D),
        servers=3,
        mbps=30,
    )
    assert {row.id for row in world.run(job).flows} == {"a", "b"}
