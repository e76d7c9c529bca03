"""Whom the desk for agents misses on the data network."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from agent_office import EXPECTED, HERE, WAIT_S, Office, until

from testbed.cluster import agents
from testbed.cluster.agents import AgentDesk
from testbed.fabric import RunFailed

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
