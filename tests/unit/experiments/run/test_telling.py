"""What is told while results are written: every few seconds, and not of what is quick."""

import os
import threading
import time

from experiments.run.telling import Telling
from testbed.fabric import RunProgress


def test_what_goes_on_is_told_again_and_again_until_the_end() -> None:
    told: list[RunProgress] = []
    twice = threading.Event()

    def tell(state: RunProgress) -> None:
        told.append(state)
        if len(told) >= 2:
            twice.set()

    with Telling(tell, every_s=0.001) as say:
        say("writing tables", 2, 6)
        assert twice.wait(60)
        say.end("done")
    states = [(state.phase, state.done, state.total) for state in told]
    assert states[:2] == [("writing tables", 2, 6)] * 2
    assert set(states) == {("writing tables", 2, 6), ("done", 0, 0)}


def test_nothing_is_told_before_something_was_said() -> None:
    told: list[RunProgress] = []
    with Telling(told.append, every_s=0.001) as say:
        time.sleep(0.05)
        say("writing tables")
        say.end("done")
    assert "" not in {state.phase for state in told}


def test_nothing_is_told_of_what_is_quick() -> None:
    told: list[RunProgress] = []
    with Telling(told.append, every_s=1000.0) as say:
        say("writing tables", 2, 6)
        say.end("done")
    assert told == []


def test_no_process_is_forked_while_something_is_told() -> None:
    """Whoever tells may hold a lock of the terminal, which nobody would release in the fork."""
    tells, may_end, forked = threading.Event(), threading.Event(), threading.Event()

    def tell(state: RunProgress) -> None:
        tells.set()
        may_end.wait(60)

    def fork() -> None:
        child = os.fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
        forked.set()

    with Telling(tell, every_s=0.001) as say:
        say("writing tables")
        assert tells.wait(60)
        threading.Thread(target=fork, daemon=True).start()
        assert not forked.wait(0.2)
        may_end.set()
        assert forked.wait(60)
