"""The desk for agents, and a real agent, over loopback with keys."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import zmq

from controller import curve, gate
from controller.curve_files import coordinator_keys, make_keys, ranks_keys
from controller.sources import CODE_ROOT, source_digest
from testbed.cluster import agents
from testbed.cluster.agents import AgentDesk, Expected, cannot_listen, why_not
from testbed.coordinator.silence import Silences
from testbed.fabric import RunFailed
from workers.agent_protocol import (
    AgentLeft,
    Dismissed,
    FromAgent,
    Here,
    Load,
    Machine,
    Ping,
    Pong,
    RankEnded,
    Refused,
    ToAgent,
    decode_to_agent,
    encode,
)

AHEAD_NS = 5_000_000_000
WAIT_S = 10.0
HERE = Here(
    host="node01",
    local_rank=0,
    job="job",
    source="code",
    machine=Machine(mfs="", torch="", python="", kernel="", cores=1, gpus=0, mtus={"eth1": 1500}),
    load=Load(idle=0.5, sent=10, again=1, received={"eth1": 20}),
)
EXPECTED = Expected(hosts=frozenset({"node01"}), job="job", source="code")


class Office:
    """A desk on a port of its own. `said` is what it logs."""

    def __init__(self, directory: Path, expected: Expected) -> None:
        self.keys_at = directory / "keys"
        make_keys(self.keys_at)
        keys, _ = coordinator_keys(self.keys_at)
        self.said: list[str] = []
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._gate = gate.let_in(self._context, keys, self.said.append)
        probe = self._context.socket(zmq.PULL)
        port = probe.bind_to_random_port("tcp://127.0.0.1")
        probe.close(linger=0)
        time.sleep(0.1)  # libzmq gives a port back in a thread of its own
        self.endpoint = f"tcp://127.0.0.1:{port}"
        self.desk = AgentDesk(expected, self.said.append)
        self.desk.start(self._context, self.endpoint, keys)
        self._agents: list[FakeAgent] = []

    def agent(self, here: Here = HERE, peer: str = "") -> "FakeAgent":
        made = FakeAgent(self.endpoint, self.keys_at / "ranks", here, peer)
        self._agents.append(made)
        return made

    def close(self) -> None:
        self.desk.close(failed=False)
        for agent in self._agents:
            agent.close()
        self._gate.stop()
        self._context.term()


class FakeAgent:
    """Says that it is there, answers pings with a clock that is 5 s ahead, and keeps what it is told."""

    def __init__(self, endpoint: str, keys: Path, here: Here, peer: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        name = peer or f"{here.host}/{here.local_rank}"
        self._socket = curve.connect(self._context, endpoint, ranks_keys(keys), name)
        self.told: list[ToAgent] = []
        self._stop = threading.Event()
        self._to_say: list[FromAgent] = [here]
        self._raw: list[tuple[bytes, ...]] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def say(self, message: FromAgent) -> None:
        self._to_say.append(message)

    def send(self, *frames: bytes) -> None:
        """Send frames as they are."""
        self._raw.append(frames)

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._socket.close(linger=0)
        self._context.term()

    def _run(self) -> None:
        while not self._stop.is_set():
            while self._to_say:
                self._socket.send(encode(self._to_say.pop(0)))
            while self._raw:
                self._socket.send_multipart(self._raw.pop(0))
            if not self._socket.poll(10):
                continue
            message = decode_to_agent(self._socket.recv())
            if isinstance(message, Ping):
                now_ns = time.monotonic_ns() + AHEAD_NS
                self._socket.send(encode(Pong(number=message.number, wall_ns=now_ns)))
            else:
                self.told.append(message)


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path, EXPECTED)
    yield made
    made.close()


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_agent_registers_and_is_dismissed_at_the_end(office: Office) -> None:
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


ON_DATA_NETWORK = {f"node0{number}": f"192.168.1.{number}" for number in (1, 2, 3)}
"""The addresses of three hosts."""


class Neighbourhood:
    """Three hosts whose agents say all the time that they are there. Those in `talking` hear each other on
    the data network."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(agents, "PATIENCE_S", 2.0)
        monkeypatch.setattr(agents, "BEAT_S", 0.3)
        self.office = Office(directory, msgspec.structs.replace(EXPECTED, hosts=frozenset(ON_DATA_NETWORK)))
        self.names = [f"{host}/0" for host in ON_DATA_NETWORK]
        self.talking: tuple[str, ...] = ()
        self._agents = {
            host: self.office.agent(msgspec.structs.replace(HERE, host=host)) for host in ON_DATA_NETWORK
        }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._talk, daemon=True)
        self._thread.start()
        self.desk.wait_for(self.names, WAIT_S, lambda missing: None)

    @property
    def desk(self) -> AgentDesk:
        return self.office.desk

    def run(self, *hosts: str) -> None:
        """Start a job on these hosts; the addresses are all that matters here."""
        self.desk.run({}, {host: ON_DATA_NETWORK[host] for host in hosts})

    def all_heard(self) -> None:
        """Return when all hosts have been heard on the data network."""
        self.talking = tuple(ON_DATA_NETWORK)
        until(lambda: all(here.heard for here in self.desk.here().values()))

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self.office.close()

    def _talk(self) -> None:
        while not self._stop.wait(0.05):
            talking = self.talking
            for host, agent in self._agents.items():
                others = [one for one in talking if one != host and host in talking]
                heard = tuple(ON_DATA_NETWORK[one] for one in others)
                agent.say(msgspec.structs.replace(HERE, host=host, heard=heard))


@pytest.fixture
def hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Neighbourhood]:
    made = Neighbourhood(tmp_path, monkeypatch)
    yield made
    made.close()


CUT_OFF = "nothing has come from node02 or to it over the data network for 2 s"


def test_a_host_that_is_cut_off_from_the_data_network_ends_the_run(hosts: Neighbourhood) -> None:
    """Its agent is still heard of, over the control plane."""
    hosts.run(*ON_DATA_NETWORK)
    hosts.all_heard()
    hosts.desk.check(hosts.names)
    hosts.talking = ("node01", "node03")
    time.sleep(2.5)
    with pytest.raises(RunFailed, match=CUT_OFF):
        hosts.desk.check(hosts.names)


def test_a_host_that_was_cut_off_a_moment_ago_is_waited_for_and_lost(hosts: Neighbourhood) -> None:
    hosts.run(*ON_DATA_NETWORK)
    hosts.all_heard()
    hosts.talking = ("node01", "node03")
    assert hosts.desk.lost(hosts.names) == {"node02/0": CUT_OFF}


def test_a_run_that_stands_still_is_told_who_is_not_heard(hosts: Neighbourhood) -> None:
    """Three beats are 0.9 s here."""
    hosts.run(*ON_DATA_NETWORK)
    hosts.all_heard()
    assert hosts.desk.unheard(hosts.names) == ""
    hosts.talking = ("node01", "node03")
    until(lambda: hosts.desk.unheard(hosts.names))
    told = "; nothing has come from node02 or to it over the data network for 1 s"
    assert hosts.desk.unheard(hosts.names) == told


def test_hosts_that_hear_each_other_are_not_lost(hosts: Neighbourhood) -> None:
    hosts.run(*ON_DATA_NETWORK)
    hosts.all_heard()
    assert hosts.desk.lost(hosts.names) == {}


def test_a_host_that_a_job_does_without_is_not_missed(hosts: Neighbourhood) -> None:
    hosts.run("node01", "node03")
    hosts.all_heard()
    hosts.talking = ("node01", "node03")
    time.sleep(2.5)
    hosts.desk.check(hosts.names)


def test_on_a_network_on_which_nobody_was_ever_heard_nobody_is_missed(hosts: Neighbourhood) -> None:
    hosts.run(*ON_DATA_NETWORK)
    time.sleep(2.5)
    hosts.desk.check(hosts.names)


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


# --- the real agent -----------------------------------------------------------------------------


def started(office: Office, job: str, *, patience_s: float = 15.0, **more: str) -> "subprocess.Popen[str]":
    """An agent, with its host name replaced by node01."""
    code = (
        "import socket; socket.gethostname = lambda: 'node01'\n"
        f"from workers import cluster; cluster.PATIENCE_S = {patience_s}; cluster.main()"
    )
    environment = os.environ | {
        "LOCAL_RANK": "0",
        "MFS_COORDINATOR": office.endpoint,
        "MFS_KEYS": str(office.keys_at / "ranks"),
        "MFS_JOB": job,
        **more,
    }
    return subprocess.Popen([sys.executable, "-c", code], env=environment, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def real(tmp_path: Path) -> Iterator[Office]:
    expected = msgspec.structs.replace(EXPECTED, source=source_digest(CODE_ROOT))
    made = Office(tmp_path, expected)
    yield made
    made.close()


def test_a_real_agent_is_there_has_its_clock_read_and_leaves_when_it_is_dismissed(real: Office) -> None:
    """Both processes have one clock, so it is ahead by nothing."""
    process = started(real, "job")
    real.desk.wait_for(["node01/0"], 60.0, lambda missing: None)
    reading = real.desk.read_clocks(["node01/0"])["node01/0"]
    assert abs(reading.ahead_ns) <= reading.error_ns
    here = real.desk.here()["node01/0"]
    assert here.machine.mtus["lo"] > 0
    real.desk.close(failed=False)
    assert process.wait(30) == 0


def test_a_real_agent_with_the_wrong_key_ends_and_says_why(real: Office, tmp_path: Path) -> None:
    make_keys(tmp_path / "others")
    process = started(real, "job", MFS_KEYS=str(tmp_path / "others" / "ranks"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"the coordinator at {real.endpoint} does not take the key of this server" in errors


def test_an_address_that_is_taken_is_told_with_its_key(office: Office) -> None:
    keys, _ = coordinator_keys(office.keys_at)
    with (
        pytest.raises(
            RunFailed, match=r"cannot listen at tcp://.*: Address already in use.*; see coordinator"
        ),
        cannot_listen(office.endpoint),
    ):
        AgentDesk(EXPECTED, print).start(zmq.Context.instance(), office.endpoint, keys)


def test_a_real_agent_of_another_job_ends_and_says_why(real: Office) -> None:
    process = started(real, "older")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "refuses this agent: it was started for the job older, and this is job" in errors


def test_a_real_agent_that_is_told_to_end_says_so(real: Office) -> None:
    process = started(real, "job")
    real.desk.wait_for(["node01/0"], 60.0, lambda missing: None)
    process.send_signal(signal.SIGTERM)
    until(lambda: real.said)
    assert real.said == ["the agent node01/0 was told to end by SIGTERM"]
    process.communicate(timeout=30)
    assert process.returncode == 1


def test_a_real_agent_without_a_coordinator_gives_up(real: Office) -> None:
    real.endpoint = "tcp://127.0.0.1:1"  # nobody listens there
    process = started(real, "job", MFS_WAIT_S="0.5")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "nothing has been heard of tcp://127.0.0.1:1 for 0 s" in errors


def test_a_real_agent_whose_coordinator_is_gone_gives_up(
    real: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its patience is half a second longer here than what lies between two beats."""
    process = started(real, "job", patience_s=1.5)
    real.desk.wait_for(["node01/0"], 60.0, lambda missing: None)
    real.desk.read_clocks(["node01/0"])  # until it has heard something, it waits longer
    monkeypatch.setattr(AgentDesk, "here", lambda desk: {})  # so nobody is dismissed
    real.desk.close(failed=False)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert f"nothing has been heard of {real.endpoint} for 2 s" in errors


def test_an_agent_without_its_environment_says_what_is_missing() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "workers.cluster"],
        env={**os.environ, "LOCAL_RANK": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "not set: MFS_COORDINATOR, MFS_KEYS, MFS_JOB; `mfs cluster command` prints" in done.stderr
