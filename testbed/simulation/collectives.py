"""Collectives of simulated ranks: round by round as they are, or as one stream where that is the same.

Times are model nanoseconds, sizes model bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Protocol

from testbed.simulation.clock import Agenda
from workers.plan import Collective, CollectiveKind
from workers.rounds import Direct, DoubleTree, Ring

EVEN = 0.01
"""By how much of the larger two sizes may differ that count as alike."""

_NS_PER_S = 1e9

Resume = Callable[[], None]
RecordSpan = Callable[[int, str, str, str, int | None, int], None]
"""Rank, kind, label, batch, layer, start: a span that ends now."""


class Share(Protocol):
    """What one member sends in a collective: one flow for the scheduler, sent round by round."""

    def send(self, sizes: Mapping[int, int], arrived: Callable[[int], None] | None) -> None:
        """Send these bytes to these peers now; `arrived` is told of each that has them, also of none."""
        ...


class Carrier(Protocol):
    """What collectives need of a transport. Nothing is called back before the call has returned."""

    def open_share(
        self,
        step: Collective,
        index: int,
        batch: str,
        layer: int,
        total: Mapping[int, int],
        done: Callable[[], None],
    ) -> Share:
        """Submit what member `index` sends to its peers in all rounds; `done` once it has all arrived."""
        ...

    def open_group(self, step: Collective, batch: str, layer: int, done: Callable[[], None]) -> None:
        """Send what all members send as one flow, all connections in lockstep; `done` at its end."""
        ...


def even(step: Collective, members: int) -> bool:
    """Whether `step` can go as one stream: alone, its last byte arrives when it would message by message.

    A ring all-reduce can: all members send alike in all rounds. So can an all-gather of shards of one size,
    and an all-to-all of which every member sends alike to all others (a dispatch to experts), or is
    sent alike by all others (a combine). A tree, where members have different parts, and ring attention,
    which waits for compute, cannot. What has nothing to send need not.
    """
    if members == 1:
        return False
    match step.kind:
        case CollectiveKind.ALL_REDUCE:
            return step.sizes[0][0] > 0
        case CollectiveKind.ALL_GATHER:
            return max(step.sizes[0]) > 0 and _alike(step.sizes[0])
        case CollectiveKind.ALL_TO_ALL:
            if not any(map(max, step.sizes)):
                return False
            return _all_alike(step.sizes) or _all_alike(tuple(zip(*step.sizes, strict=True)))
    return False


def _all_alike(rows: Sequence[tuple[int, ...]]) -> bool:
    """Of each row all but what is on the diagonal, which is not sent."""
    return all(_alike(row[:i] + row[i + 1 :]) for i, row in enumerate(rows))


def _alike(sizes: Sequence[int]) -> bool:
    most = max(sizes)
    return most - min(sizes) <= EVEN * most


class Collectives:
    """All collectives under way.

    `groups` are the ranks of each process group; with `grouped`, those that are `even` go as one
    stream. `span` records the rounds of ring attention.
    """

    def __init__(
        self,
        carrier: Carrier,
        agenda: Agenda,
        groups: Mapping[str, tuple[int, ...]],
        *,
        grouped: bool,
        span: RecordSpan,
    ) -> None:
        self._carrier = carrier
        self._agenda = agenda
        self._groups = groups
        self._grouped = grouped
        self._span = span
        self._under_way: dict[str, _Exchange | _Together] = {}

    def join(self, step: Collective, batch: str, layer: int, rank: int, resume: Resume) -> None:
        """`rank` has come to `step`; `resume` is called when it may go on."""
        exchange = self._under_way.get(step.id)
        ranks = self._groups[step.group]
        if exchange is None:
            over = partial(self._under_way.__delitem__, step.id)
            if self._grouped and even(step, len(ranks)):
                exchange = _Together(self._carrier, step, batch, layer, len(ranks), over)
            else:
                exchange = _Exchange(self._carrier, self._agenda, self._span, step, batch, layer, ranks, over)
            self._under_way[step.id] = exchange
        exchange.join(ranks.index(rank), resume)


_Round = tuple[tuple[tuple[tuple[int, int], ...], int], ...]
"""By member: peer and part of each message that it sends, and how many messages it is sent."""


@cache
def _schedule(rounds: Ring | DoubleTree | Direct, members: int) -> tuple[_Round, ...]:
    """All rounds as plain tuples: layer after layer goes through the same ones."""
    return tuple(
        tuple(
            (
                tuple((message.peer, message.part) for message in rounds.sends(index, number)),
                len(rounds.receives(index, number)),
            )
            for index in range(members)
        )
        for number in range(rounds.count)
    )


class _Together:
    """A collective as one stream: it begins with its last member and ends for all at once."""

    __slots__ = ("_batch", "_carrier", "_layer", "_members", "_over", "_resume", "_step")

    def __init__(
        self, carrier: Carrier, step: Collective, batch: str, layer: int, members: int, over: Resume
    ) -> None:
        self._carrier = carrier
        self._step = step
        self._batch = batch
        self._layer = layer
        self._members = members
        self._over = over
        self._resume: dict[int, Resume] = {}

    def join(self, index: int, resume: Resume) -> None:
        self._resume[index] = resume
        if len(self._resume) == self._members:
            self._carrier.open_group(self._step, self._batch, self._layer, self._done)

    def _done(self) -> None:
        self._over()
        for index in range(self._members):
            self._resume[index]()


class _Exchange:
    """A collective round by round.

    A message is sent when both its ends are in its round: the receiver's buffer is not there before. So
    it is with gloo, and with NCCL for what its own buffers do not hold. A member is in a round until
    what it sends has arrived, what it is sent is there and, in ring attention, the block is computed over; in
    its last round also until its flow is complete.
    """

    __slots__ = (
        "_agenda",
        "_arrive",
        "_batch",
        "_carrier",
        "_complete",
        "_count",
        "_held",
        "_last",
        "_layer",
        "_over",
        "_parts",
        "_ranks",
        "_resume",
        "_round",
        "_schedule",
        "_shares",
        "_since_ns",
        "_span",
        "_step",
        "_unfinished",
        "_waits",
    )

    def __init__(
        self,
        carrier: Carrier,
        agenda: Agenda,
        span: RecordSpan,
        step: Collective,
        batch: str,
        layer: int,
        ranks: Sequence[int],
        over: Resume,
    ) -> None:
        members = len(ranks)
        self._carrier = carrier
        self._agenda = agenda
        self._span = span
        self._step = step
        self._batch = batch
        self._layer = layer
        self._ranks = ranks
        self._over = over
        rounds = step.rounds(members)
        one_round = step.kind is CollectiveKind.ALL_TO_ALL
        self._schedule = () if one_round else _schedule(rounds, members)
        self._parts = () if one_round else step.parts(members)
        self._count = rounds.count
        self._last = max(1, len(step.round_seconds[0]) if step.round_seconds else rounds.count) - 1
        self._round = [-1] * members
        self._waits = [0] * members
        self._complete = [False] * members
        self._held: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._shares: dict[int, Share] = {}
        self._arrive = [partial(self._arrived, index) for index in range(members)]
        self._resume: dict[int, Resume] = {}
        self._since_ns = [0] * members
        self._unfinished = members

    def join(self, index: int, resume: Resume) -> None:
        self._resume[index] = resume
        self._since_ns[index] = self._agenda.now_ns
        total = self._step.sent_by(index, len(self._ranks))
        done = partial(self._completed, index)
        self._shares[index] = self._carrier.open_share(
            self._step, index, self._batch, self._layer, total, done
        )
        self._enter(index, 0)

    def _enter(self, index: int, number: int) -> None:
        """Begin round `number`, and the next ones as long as there is nothing to wait for."""
        while number <= self._last:
            sends, expected = self._messages(index, number)
            waits = len(sends) + expected
            if self._step.round_seconds:
                waits += 1
                self._compute(index, number)
            if number == self._last and not self._complete[index]:
                waits += 1
            self._round[index] = number
            self._waits[index] = waits
            self._send(index, number, sends)
            for peer, size in self._held.pop((index, number), ()):
                self._shares[peer].send({index: size}, self._arrive[peer])
            if waits:
                return
            number += 1
        self._through(index)

    def _messages(self, index: int, number: int) -> tuple[Sequence[tuple[int, int]], int]:
        """Peer and size of what a member sends in a round, and how many messages it is sent."""
        if number >= self._count:
            return (), 0
        if self._step.kind is CollectiveKind.ALL_TO_ALL:
            sends = [(peer, size) for peer, size in enumerate(self._step.sizes[index]) if peer != index]
            return sends, len(sends)
        messages, expected = self._schedule[number][index]
        parts = self._parts
        return [(peer, parts[part]) for peer, part in messages], expected

    def _send(self, index: int, number: int, sends: Sequence[tuple[int, int]]) -> None:
        """Send what peers are ready for. Two trees that both have something for a peer send it apart:
        NCCL has a connection for each."""
        ready: dict[int, int] = {}
        for peer, size in sends:
            if self._round[peer] != number:
                self._held.setdefault((peer, number), []).append((index, size))
            elif peer in ready:
                self._shares[index].send({peer: size}, self._arrive[index])
            else:
                ready[peer] = size
        if ready:
            self._shares[index].send(ready, self._arrive[index])

    def _compute(self, index: int, number: int) -> None:
        now_ns = self._agenda.now_ns
        self._record_wait(index)
        seconds = self._step.round_seconds[index][number]
        self._agenda.at(now_ns + round(seconds * _NS_PER_S), partial(self._computed, index, now_ns))

    def _computed(self, index: int, began_ns: int) -> None:
        self._record(index, "compute", began_ns)
        self._since_ns[index] = self._agenda.now_ns
        self._happened(index)

    def _arrived(self, index: int, peer: int) -> None:
        """A message of member `index` is at `peer`; both are in its round."""
        self._happened(peer)
        self._happened(index)

    def _completed(self, index: int) -> None:
        self._complete[index] = True
        if self._round[index] == self._last:
            self._happened(index)

    def _happened(self, index: int) -> None:
        """One of the things that a member waits for in its round."""
        self._waits[index] -= 1
        if self._waits[index] == 0:
            self._enter(index, self._round[index] + 1)

    def _through(self, index: int) -> None:
        if self._step.round_seconds:
            self._record_wait(index)
        self._unfinished -= 1
        if self._unfinished == 0:
            self._over()
        self._resume[index]()

    def _record_wait(self, index: int) -> None:
        """Ring attention has waited for bytes since the last block was computed over."""
        if self._since_ns[index] < self._agenda.now_ns:
            self._record(index, "collective", self._since_ns[index])

    def _record(self, index: int, kind: str, start_ns: int) -> None:
        self._span(self._ranks[index], kind, self._step.label, self._batch, self._layer, start_ns)
