"""The coordinator's desk for agents: who is there, who starts which rank, and how far their clocks are ahead.

A thread serves the desk as long as the fabric lives, so agents hear of the coordinator even while nobody
runs a job. An agent is called by its host and its number there, as in `node07/2`.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping

import msgspec
import zmq

from controller.curve import ServerKeys
from controller.gate import Refusals
from controller.tcp_hub import TcpHub
from testbed.cluster.clocks import Reading, RoundTrip, read
from testbed.cluster.places import Claim, Places
from testbed.coordinator.silence import PATIENCE_S, Silences
from testbed.fabric import RunFailed
from workers.agent_protocol import (
    BEAT_S,
    AgentLeft,
    Beat,
    Dismissed,
    Here,
    PairListening,
    PairResult,
    Ping,
    Pong,
    RankEnded,
    ReceivePair,
    Refused,
    RunRank,
    SendPair,
    StopRank,
    ToAgent,
    decode_from_agent,
    encode,
)
from workers.protocol import RankConfig

ROUND_TRIPS = 40
MOST_BYTES = 2**20
"""How large a message of an agent may be."""

_POLL_MS = 20
_PING_S = 10.0
_DISMISS_S = 1.0
_BEATS = 3
"""An agent that has missed so many beats may be gone."""

_DOUBT_BEATS = 2
"""After a wait of `_BEATS`, an agent that lives has been heard within so many."""

_MOST_TURNED_AWAY = 100
_TWICE = "was the command of this server given twice, or is one of an earlier run still there?"


class Expected(msgspec.Struct, frozen=True, kw_only=True):
    """Whom the desk takes: agents on these `hosts`, for this `job`, with code of this digest."""

    hosts: frozenset[str]
    job: str
    source: str


class AgentDesk:
    """Listens at `endpoint` from `start` to `close`. `log` is called, in other threads, with what happens."""

    def __init__(self, expected: Expected, log: Callable[[str], None]) -> None:
        self._expected = expected
        self._log = log
        self._lock = threading.Lock()
        self._here: dict[str, Here] = {}
        self._heard = Silences((), time.monotonic())
        self._host_of: dict[str, str] = {}
        self._on_data_network = Silences((), time.monotonic())
        self._peers = Places(patience_s=_BEATS * BEAT_S)
        self._working: frozenset[str] = frozenset()  # the agents that have been told to start ranks
        self._turned_away: dict[str, str] = {}
        self._refused = Refusals(log)
        self._trouble: list[tuple[str | None, str]] = []  # of which agent, and what
        self._gone: dict[str, str] = {}
        self._pairs: dict[int, list[PairListening | PairResult]] = {}
        self._trips: dict[str, list[RoundTrip]] = {}
        self._out: queue.SimpleQueue[tuple[str, ToAgent]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._hub: TcpHub | None = None
        self._thread = threading.Thread(target=self._serve, name="agents", daemon=True)

    def start(self, context: "zmq.Context[zmq.Socket[bytes]]", endpoint: str, keys: ServerKeys) -> None:
        """Raises `zmq.ZMQError` if the address cannot be bound."""
        self._hub = TcpHub(context, endpoint, keys, self._log, most_bytes=MOST_BYTES)
        self._thread.start()

    def close(self, *, failed: bool) -> None:
        """Dismiss all agents, and end."""
        if self._hub is None:
            return
        for name in self.here():
            self._out.put((name, Dismissed(failed=failed)))
        self._stop.set()
        self._thread.join()

    # --- what is known ----------------------------------------------------------------------------

    def here(self) -> dict[str, Here]:
        """What each agent has said of itself last."""
        with self._lock:
            return dict(self._here)

    def check(self, names: Collection[str]) -> None:
        """Raise `RunFailed` if one of these agents has left or is silent, if its rank has ended, or if its
        server is cut off from the data network."""
        with self._lock:
            trouble = [what for name, what in self._trouble if name is None or name in names]
            if trouble:
                raise RunFailed("; ".join(trouble))
            silent = [n for n in sorted(names) if self._heard.silent_s(n) > PATIENCE_S]
            hosts = sorted(self._host_of.values())
            cut_off = [host for host in hosts if self._on_data_network.silent_s(host) > PATIENCE_S]
        if silent:
            raise RunFailed(
                f"nothing has been heard of the agents {', '.join(silent)} for {PATIENCE_S:.0f} s"
            )
        if cut_off:  # its agent lives
            raise RunFailed(_cut_off(cut_off, PATIENCE_S))

    def unheard(self, names: Collection[str]) -> str:
        """The hosts of these agents of which nothing has come over the data network for three beats, in words
        to add to what went wrong; empty if there are none."""
        with self._lock:
            hosts = sorted({name.rpartition("/")[0] for name in names})
            found = [h for h in hosts if self._on_data_network.silent_s(h) > _BEATS * BEAT_S]
        return f"; {_cut_off(found, _BEATS * BEAT_S)}" if found else ""

    def lost(self, names: Collection[str]) -> dict[str, str]:
        """Which of these agents are silent or have left, whose rank was killed, or whose server is cut off
        from the data network, and how.

        Waits for three beats, and for an agent or a server that is silent then until it is heard or is silent
        for too long, because what others say of a death comes sooner than the silence. A rank that has ended
        by itself had an error, and is not lost.

        The wait is counted by the clock of the silences: whoever has said nothing since it began has been
        silent for all of it.
        """
        with self._lock:
            begun_s = self._heard.watched_s
        while True:
            with self._lock:
                waited_s = self._heard.watched_s - begun_s
                found = {name: self._gone[name] for name in sorted(names) if name in self._gone}
                hosts = {name.rpartition("/")[0] for name in names}
                unseen_s = {host: self._on_data_network.silent_s(host) for host in hosts}
                quiet_s = {n: self._heard.silent_s(n) for n in names if n not in found}
            waits_s = (*quiet_s.values(), *unseen_s.values())
            doubtful = any(_DOUBT_BEATS * BEAT_S < each <= PATIENCE_S for each in waits_s)
            settled = not doubtful and waited_s > _BEATS * BEAT_S
            if settled or not self._thread.is_alive():  # without the thread, nobody is heard any more
                for name in sorted(quiet_s):
                    host = name.rpartition("/")[0]
                    if quiet_s[name] > PATIENCE_S:
                        found[name] = f"nothing has been heard of the agent {name} for {PATIENCE_S:.0f} s"
                    elif unseen_s[host] > PATIENCE_S:
                        found[name] = _cut_off([host], PATIENCE_S)
                return found
            time.sleep(_POLL_MS / 1000)

    def wait_for(self, names: Collection[str], seconds: float, waiting: Callable[[list[str]], None]) -> None:
        """Return when these agents are there. `waiting` is called with those that are missing, now and then.

        Raises `RunFailed` after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while missing := sorted(set(names) - self.here().keys()):
            waiting(missing)
            if time.monotonic() > deadline:
                refused = "".join(f"; {name} was refused: {why}" for name, why in self._turned_away.items())
                raise RunFailed(
                    f"waited {seconds:.0f} s for agents; these have not come: {', '.join(missing)}{refused}"
                )
            time.sleep(0.2)

    # --- orders -----------------------------------------------------------------------------------

    def run(self, configs: Mapping[str, RankConfig], addresses: Mapping[str, str]) -> None:
        """Have agents start ranks. `addresses` are those of their hosts on the data network.

        A host is missed there once it was heard, until the next call.
        """
        with self._lock:
            self._working = frozenset(configs)
            self._host_of = {address: host for host, address in addresses.items()}
            self._on_data_network = Silences((), time.monotonic())
        listeners: dict[str, str] = {}
        for name in sorted(configs):
            listeners.setdefault(name.rpartition("/")[0], name)
        for name, config in configs.items():
            host = name.rpartition("/")[0]
            others = tuple(address for other, address in addresses.items() if other != host)
            order = RunRank(config=config, neighbours=others if listeners[host] == name else ())
            self._out.put((name, order))

    def stop_ranks(self) -> None:
        """End the ranks of a job, however far they are, and forget what was wrong with them."""
        for name in self.here():
            self._out.put((name, StopRank()))
        with self._lock:
            self._working = frozenset()
            self._trouble.clear()

    def read_clocks(self, names: Collection[str]) -> dict[str, Reading]:
        """Return how far the clock of each of these agents is ahead. Raises `RunFailed` if one is silent."""
        found = {}
        for name in sorted(names):
            with self._lock:
                self._trips[name] = []
            deadline = time.monotonic() + _PING_S
            self._out.put((name, Ping(number=0)))
            while len(trips := self._trips[name]) < ROUND_TRIPS:
                if time.monotonic() > deadline:
                    raise RunFailed(f"the agent {name} has not answered for {_PING_S:.0f} s")
                time.sleep(0.002)
            found[name] = read(trips)
        return found

    def ask(self, name: str, order: ReceivePair | SendPair) -> None:
        self._out.put((name, order))

    def answers(self, number: int) -> list[PairListening | PairResult]:
        """What agents have said of pair `number` so far."""
        with self._lock:
            return list(self._pairs.get(number, ()))

    # --- the thread -------------------------------------------------------------------------------

    def _serve(self) -> None:
        assert self._hub is not None
        hub, sent_ns, beat_s = self._hub, 0, 0.0
        try:
            while True:
                last = self._stop.is_set()
                while not self._out.empty():
                    name, message = self._out.get()
                    if isinstance(message, Ping):
                        sent_ns = time.monotonic_ns()
                    peer = self._peers.peer_at(name)
                    if peer is not None:  # or it has left
                        hub.send(peer, encode(message))
                if last:
                    time.sleep(_DISMISS_S)  # ZeroMQ hands over what is queued in a thread of its own
                    return
                hub.socket.poll(_POLL_MS)
                for peer, frame in hub.drain():
                    sent_ns = self._hear(hub, peer, frame, time.monotonic_ns(), sent_ns)
                with self._lock:  # after all that was said has been heard
                    self._heard.look(time.monotonic())
                    self._on_data_network.look(time.monotonic())
                if time.monotonic() - beat_s >= BEAT_S:
                    beat_s = time.monotonic()
                    for name in hub.names():
                        hub.send(name, encode(Beat()))
        except BaseException as error:
            with self._lock:
                self._trouble.append((None, f"the desk for agents: {type(error).__name__}: {error}"))
        finally:
            hub.close()

    def _hear(self, hub: TcpHub, peer: str, frame: bytes, now_ns: int, sent_ns: int) -> int:
        """Take in a message. Returns when the last ping was sent."""
        try:
            message = decode_from_agent(frame)
        except msgspec.MsgspecError as error:
            self._refused(f"{peer}: a message that cannot be read: {error}")
            return sent_ns
        if isinstance(message, Here) and not self._comes(hub, peer, message):
            return sent_ns
        name = self._peers.place_of(peer)
        if name is None:
            return sent_ns  # it is not one of our agents, or not yet
        with self._lock:
            self._heard.heard(name)
        match message:
            case Here():
                with self._lock:
                    self._here[name] = message
                    self._seen(message)
            case Pong(number=number, wall_ns=theirs_ns):
                trips = self._trips.get(name)
                if trips is None:
                    return sent_ns  # nobody has asked
                trips.append(RoundTrip(sent_ns=sent_ns, theirs_ns=theirs_ns, received_ns=now_ns))
                if len(trips) < ROUND_TRIPS:
                    sent_ns = time.monotonic_ns()
                    hub.send(peer, encode(Ping(number=number + 1)))
            case RankEnded(rank=rank, how=how, killed=killed):
                if how:
                    self._note(name, f"rank {rank} ({name}) ended with {how}", gone=killed)
            case PairListening(number=number) | PairResult(number=number):
                with self._lock:
                    self._pairs.setdefault(number, []).append(message)
            case AgentLeft(why=why):
                self._peers.leave(peer)
                with self._lock:
                    self._here.pop(name, None)
                self._note(name, f"the agent {name} was told to end {why}", gone=True)
        return sent_ns

    def _comes(self, hub: TcpHub, peer: str, here: Here) -> bool:
        """Whether `peer` is the agent of its place, or becomes it. If it may not, it is told why."""
        name = agent_name((here.host, here.local_rank))
        reason = why_not(here, self._expected)
        if not reason:
            now_s = time.monotonic()
            with self._lock:
                silent_s = self._heard.silent_s(name)
            answer = self._peers.claim(name, peer, now_s, silent_s)
            if answer is Claim.REFUSED:
                reason = (
                    f"there is an agent on {here.host} with LOCAL_RANK {here.local_rank} already: {_TWICE}"
                )
            elif answer is Claim.REPLACES and name in self._working:
                self._note(name, f"the agent {name} has ended, and another one has come", gone=True)
            elif answer is Claim.WAITS:
                return False
        if reason:
            known = self._turned_away.get(name)
            if known != reason and (known or len(self._turned_away) < _MOST_TURNED_AWAY):
                self._refused(f"refused the agent {name}: {reason}")
                self._turned_away[name] = reason
            hub.send(peer, encode(Refused(reason=reason)))
        return not reason

    def _seen(self, message: Here) -> None:
        """Take in whom an agent has heard on the data network: both ends of each such datagram are there."""
        if message.host not in self._host_of.values():
            return  # its ranks are lost already
        for host in {self._host_of[address] for address in message.heard if address in self._host_of}:
            self._on_data_network.heard(host)
            self._on_data_network.heard(message.host)

    def _note(self, name: str, what: str, *, gone: bool) -> None:
        self._log(what)
        with self._lock:
            self._trouble.append((name, what))
            if gone:
                self._gone.setdefault(name, what)


def why_not(agent: Here, expected: Expected) -> str:
    """Why the desk does not take an agent, in words; empty if it does."""
    if agent.host not in expected.hosts:
        return f"the inventory has no host {agent.host!r}; it has {', '.join(sorted(expected.hosts))}"
    if agent.source != expected.source:
        return (
            f"its code is not that of the coordinator (source {agent.source[:12]}, here"
            f" {expected.source[:12]}); install the same version on all machines"
        )
    if agent.job != expected.job:
        return (
            f"it was started for the job {agent.job[:12]}, and this is {expected.job[:12]}: the scenario or"
            " the inventory has changed; `mfs cluster command` prints the command again"
        )
    return ""


@contextlib.contextmanager
def cannot_listen(endpoint: str) -> Iterator[None]:
    """Turn what ZeroMQ says of an address that cannot be bound into a `RunFailed`."""
    try:
        yield
    except zmq.ZMQError as error:
        raise RunFailed(f"cannot listen at {endpoint}: {error}; see coordinator in the inventory") from None


def _cut_off(hosts: Collection[str], seconds: float) -> str:
    return (
        f"nothing has come from {', '.join(hosts)} or to {'it' if len(hosts) == 1 else 'them'} over the data"
        f" network for {seconds:.0f} s"
    )


def agent_name(place: tuple[str, int]) -> str:
    """The name of the agent with this LOCAL_RANK on this host."""
    return f"{place[0]}/{place[1]}"


def segments(here: Mapping[str, Here]) -> dict[str, tuple[int, int]]:
    """TCP segments sent, and sent again, by host."""
    return {one.host: (one.load.sent, one.load.again) for one in here.values()}
