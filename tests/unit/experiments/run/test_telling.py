"""What is told while results are written: every few seconds, and not of what is quick."""

import os
import threading

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
    assert {(state.phase, state.done, state.total) for state in told[1:-1]} <= {
        ("writing tables", 2, 6),
        ("done", 0, 0),
    }
    assert told[1].phase == "writing tables"
    assert "done" in {state.phase for state in told[2:]}


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

    with Telling(tell, every_s=0.001):
        assert tells.wait(60)
        threading.Thread(target=fork, daemon=True).start()
        assert not forked.wait(0.2)
        may_end.set()
        assert forked.wait(60)
