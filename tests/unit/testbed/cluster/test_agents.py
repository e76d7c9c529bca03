"""The desk for agents, over loopback with keys."""

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
import zmq
from agent_office import AHEAD_NS, EXPECTED, HERE, WAIT_S, FakeAgent, Office, until

from controller.curve_files import coordinator_keys
from testbed.cluster import agents
from testbed.cluster.agents import AgentDesk, cannot_listen, why_not
from testbed.coordinator.silence import Silences
from testbed.fabric import RunFailed
from workers.agent_protocol import (
    AgentLeft,
    Dismissed,
    FromAgent,
    Load,
    Pong,
    RankEnded,
    Refused,
)


@pytest.fixture
def office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Office]:
    monkeypatch.setattr(agents, "_DISMISS_S", 0.0)  # nobody waits for what it says last
    made = Office(tmp_path, EXPECTED)
    yield made
    made.close()


def test_an_agent_registers_and_is_dismissed_at_the_end(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "_DISMISS_S", 1.0)
    agent = office.agent()
    office.desk.wait_for(["node01/0"], WAIT_S, lambda missing: None)
    assert office.desk.here() == {"node01/0": HERE}
    office.desk.close(failed=True)
    until(lambda: Dismissed(failed=True) in agent.told)


def test_agents_that_do_not_come_are_named(office: Office) -> None:
    office.agent()
    with pytest.raises(RunFailed, match=r"waited 0 s for agents; these have not come: node02/0"):
        office.desk.wait_for(["node01/0", "node02/0"], 0.3, lambda missing: None)


def test_an_agent_that_was_started_for_another_job_is_told_so_and_named(office: Office) -> None:
    agent = office.agent(msgspec.structs.replace(HERE, job="older"))
    with pytest.raises(RunFailed, match=r"node01/0 was refused: it was started for the job older"):
        office.desk.wait_for(["node01/0"], 1.0, lambda missing: None)
    assert office.said[0].startswith("refused the agent node01/0: it was started for the job older")
    until(lambda: any(isinstance(message, Refused) for message in agent.told))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, ""),
        ({"host": "node09"}, "the inventory has no host 'node09'; it has node01"),
        ({"source": "old"}, "its code is not that of the coordinator (source old, here code)"),
        ({"job": "older"}, "it was started for the job older, and this is job"),
    ],
)
def test_host_code_and_job_are_compared(change: dict[str, str], reason: str) -> None:
    told = why_not(msgspec.structs.replace(HERE, **change), EXPECTED)
    assert told.startswith(reason)
    assert bool(told) == bool(reason)


def test_a_clock_that_is_ahead_is_read_to_within_its_error(office: Office) -> None:
    office.agent()
    office.desk.wait_for(["node01/0"], WAIT_S, lambda missing: None)
    reading = office.desk.read_clocks(["node01/0"])["node01/0"]
    assert abs(reading.ahead_ns - AHEAD_NS) <= reading.error_ns


def test_an_answer_that_nobody_asked_for_counts_for_nothing(office: Office) -> None:
    agent = office.agent()
    agent.say(Pong(number=7, wall_ns=1))
    office.desk.wait_for(["node01/0"], WAIT_S, lambda missing: None)
    assert abs(office.desk.read_clocks(["node01/0"])["node01/0"].ahead_ns - AHEAD_NS) < AHEAD_NS / 2


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (RankEnded(rank=3, how="signal 9"), r"rank 3 \(node01/0\) ended with signal 9"),
        (AgentLeft(why="by SIGTERM"), r"the agent node01/0 was told to end by SIGTERM"),
    ],
)
def test_a_rank_or_an_agent_that_ends_ends_the_run(office: Office, said: FromAgent, told: str) -> None:
    agent = office.agent()
    office.desk.wait_for(["node01/0"], WAIT_S, lambda missing: None)
    office.desk.check(["node01/0"])
    agent.say(said)
    until(lambda: office.said)
    with pytest.raises(RunFailed, match=told):
        office.desk.check(["node01/0"])
    office.desk.stop_ranks()
    office.desk.check(["node01/0"])  # the next job begins anew


def test_a_second_agent_of_a_place_is_refused_and_the_first_one_stays(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = office.agent(), office.agent(peer="another")
    office.desk.wait_for(["node01/0"], WAIT_S, lambda missing: None)

    def both_say_that_they_are_there() -> bool:
        first.say(HERE)
        second.say(HERE)
        time.sleep(0.1)
        return any(isinstance(message, Refused) for message in (*first.told, *second.told))

    until(both_say_that_they_are_there)
    refused, stays = (second, first) if Refused in map(type, second.told) else (first, second)
    [told] = {message.reason for message in refused.told if isinstance(message, Refused)}
    assert told.startswith("there is an agent on node01 with LOCAL_RANK 0 already: was the command")
    assert Refused not in map(type, stays.told)
    assert office.said == [f"refused the agent node01/0: {told}"]
    office.desk.check(["node01/0"])


def test_an_agent_that_was_killed_may_be_started_again(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one says that it is there once only."""
    office.agent()
    office.desk.wait_for(["node01/0"], WAIT_S, lambda missing: None)
    again = office.agent(peer="another")
    changed = msgspec.structs.replace(HERE, load=Load(idle=0.1, sent=11, again=1, received={}))

    def is_there() -> bool:
        again.say(changed)
        time.sleep(0.1)
        return office.desk.here()["node01/0"] == changed

    until(is_there)
    assert Refused not in map(type, again.told)


def test_what_cannot_be_read_is_told_and_changes_nothing(office: Office) -> None:
    agent = office.agent()
    office.desk.wait_for(["node01/0"], WAIT_S, lambda missing: None)
    half = b"x" * (agents.MOST_BYTES // 2)
    for frames in ((b"\xc1",), (b"\xc1", b"two", b"frames"), (half, half, b"one too many")):
        agent.send(*frames)
    until(lambda: len(office.said) == 2)
    assert office.said[0].startswith("node01/0: a message that cannot be read:")  # told once
    assert office.said[1].startswith("dropped a message of more than 1048576 bytes at tcp://127.0.0.1:")
    office.desk.check(["node01/0"])
    assert office.desk.read_clocks(["node01/0"])


def test_each_reason_for_which_an_agent_is_refused_is_told_once(office: Office) -> None:
    agent = office.agent(msgspec.structs.replace(HERE, job="older"))
    for change in ({"job": "older"}, {"source": "old"}, {"job": "older"}, {"source": "old"}):
        agent.say(msgspec.structs.replace(HERE, **change))
    until(lambda: sum(isinstance(message, Refused) for message in agent.told) == 5)
    assert [told.partition(": ")[2].split()[1] for told in office.said] == ["was", "code"]


def test_a_peer_that_is_nobodys_agent_is_not_listened_to(office: Office) -> None:
    office.agent()
    office.desk.wait_for(["node01/0"], WAIT_S, lambda missing: None)
    stranger = office.agent(msgspec.structs.replace(HERE, host="node09"))
    stranger.say(RankEnded(rank=3, how="signal 9", killed=True))
    until(lambda: any(isinstance(message, Refused) for message in stranger.told))
    time.sleep(0.2)
    assert len(office.said) == 1
    office.desk.check(["node01/0"])


def test_an_agent_that_is_silent_ends_the_run(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake agent says that it is there once only."""
    monkeypatch.setattr(agents, "PATIENCE_S", 0.2)
    office.agent()
    office.desk.wait_for(["node01/0"], WAIT_S, lambda missing: None)
    time.sleep(0.3)
    with pytest.raises(RunFailed, match=r"nothing has been heard of the agents node01/0 for 0 s"):
        office.desk.check(["node01/0"])


def with_two_agents(office: Office, monkeypatch: pytest.MonkeyPatch) -> tuple[FakeAgent, FakeAgent]:
    """Beats are so short that nobody is waited for."""
    monkeypatch.setattr(agents, "BEAT_S", 0.02)
    made = office.agent(), office.agent(msgspec.structs.replace(HERE, local_rank=1))
    office.desk.wait_for(["node01/0", "node01/1"], WAIT_S, lambda missing: None)
    return made


def test_an_agent_whose_rank_was_killed_is_lost(office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    killed, peer = with_two_agents(office, monkeypatch)
    killed.say(RankEnded(rank=3, how="signal 9", killed=True))
    peer.say(RankEnded(rank=4, how="exit code 1"))  # it met an error, since its peer was gone
    until(lambda: len(office.said) == 2)
    office.desk.stop_ranks()
    monkeypatch.setattr(agents, "PATIENCE_S", 0.05)
    monkeypatch.setattr(agents, "_BEATS", 0)
    monkeypatch.setattr(office.desk, "_heard", Silences((), 0.0))
    names = ["node01/0", "node01/1"]
    assert office.desk.lost(names) == {"node01/0": "rank 3 (node01/0) ended with signal 9"}


def test_an_agent_that_is_silent_for_too_long_is_lost(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is waited for: it was heard of a moment ago, and says nothing more."""
    with_two_agents(office, monkeypatch)
    monkeypatch.setattr(agents, "PATIENCE_S", 0.5)
    lost = office.desk.lost(["node01/1"])
    assert lost == {"node01/1": "nothing has been heard of the agent node01/1 for 0 s"}


def test_a_desk_that_has_ended_waits_for_nobody(office: Office) -> None:
    office.agent()
    office.desk.wait_for(["node01/0"], WAIT_S, lambda missing: None)
    office.desk.close(failed=False)
    assert office.desk.lost(["node01/0"]) == {}


def test_what_agents_say_that_no_longer_count_is_no_trouble(office: Office) -> None:
    agent = office.agent()
    office.desk.wait_for(["node01/0"], WAIT_S, lambda missing: None)
    agent.say(AgentLeft(why="by SIGTERM"))
    until(lambda: office.said)
    office.desk.check(["node02/0"])
    with pytest.raises(RunFailed, match="node01/0"):
        office.desk.check(["node01/0"])


def test_a_rank_that_ends_as_it_should_is_no_trouble(office: Office) -> None:
    agent = office.agent()
    office.desk.wait_for(["node01/0"], WAIT_S, lambda missing: None)
    agent.say(RankEnded(rank=3, how=""))
    agent.say(msgspec.structs.replace(HERE, load=Load(idle=0.1, sent=11, again=1, received={})))
    until(lambda: office.desk.here()["node01/0"].load.idle == 0.1)
    office.desk.check(["node01/0"])


def test_an_address_that_is_taken_is_told_with_its_key(office: Office) -> None:
    keys, _ = coordinator_keys(office.keys_at)
    with (
        pytest.raises(
            RunFailed, match=r"cannot listen at tcp://.*: Address already in use.*; see coordinator"
        ),
        cannot_listen(office.endpoint),
    ):
        AgentDesk(EXPECTED, print).start(zmq.Context.instance(), office.endpoint, keys)
