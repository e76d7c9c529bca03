"""Collectives of simulated ranks: round by round as they are, or as one stream where that is the same.

Times are model nanoseconds, sizes model bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from controller.units import NS_PER_S
from testbed.simulation.agenda import Agenda
from workers.plan import Collective, CollectiveKind
from workers.rounds import Rounds
from workers.spans import SpanKind

EVEN = 0.01
"""By how much of the larger two sizes may differ that count as alike."""


Proceed = Callable[[], None]
RecordSpan = Callable[[int, SpanKind, str, str, int | None, int], None]
"""Rank, kind, label, batch, layer, start: a span that ends now."""


Messages = Sequence[tuple[int, int]]
"""Peers, and bytes for each."""

SendMessages = Callable[[Messages, Callable[[int], None] | None], None]
"""Sends messages of a flow now; what it is given is told of each peer that has its bytes, also of none."""


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
    ) -> SendMessages:
        """Submit what member `index` sends to its peers in all rounds; `done` once it has all arrived.

        It is one flow for the scheduler, sent round by round. `total` is the same object as long as it is
        equal.
        """
        ...

    def open_group(self, step: Collective, batch: str, layer: int, done: Callable[[], None]) -> None:
        """SendMessages what all members send as one flow, all connections in lockstep; `done` at its end."""
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


class _Script:
    """Who sends what in all rounds of a collective, worked out once for all layers that are alike.

    `rounds[number][index]` has the messages of a member, those to a peer that has one of them already
    (two trees can both have something for it), and how many messages it is sent. `totals[index]` are the
    bytes for each peer.
    """

    __slots__ = ("_kind", "_sizes", "rounds", "totals")

    def __init__(self, step: Collective, members: int) -> None:
        self._kind = step.kind
        self._sizes = step.sizes
        rounds, parts = step.rounds(members), step.parts(members)
        # Ring attention computes once more when nothing is left to send.
        count = len(step.round_seconds[0]) if step.round_seconds else rounds.count
        self.rounds = tuple(
            tuple(_of_member(rounds, parts, index, number) for index in range(members))
            for number in range(max(1, count))
        )
        self.totals = tuple(step.sent_by(index, members) for index in range(members))

    def tells(self, step: Collective) -> bool:
        """Whether it is that of `step`, which is of the same group."""
        return self._kind is step.kind and self._sizes == step.sizes


def _of_member(
    rounds: Rounds, parts: Sequence[int], index: int, number: int
) -> tuple[Messages, Messages, int]:
    if number >= rounds.count:
        return (), (), 0
    first: dict[int, int] = {}
    further: list[tuple[int, int]] = []
    for message in rounds.sends(index, number):
        if message.peer in first:
            further.append((message.peer, parts[message.part]))
        else:
            first[message.peer] = parts[message.part]
    return tuple(first.items()), tuple(further), len(rounds.receives(index, number))


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
        self._scripts: dict[tuple[str, str], _Script] = {}

    def join(self, step: Collective, batch: str, layer: int, rank: int, resume: Proceed) -> None:
        """`rank` has come to `step`; `resume` is called when it may go on."""
        exchange = self._under_way.get(step.id)
        ranks = self._groups[step.group]
        if exchange is None:
            over = partial(self._under_way.__delitem__, step.id)
            if self._grouped and even(step, len(ranks)):
                exchange = _Together(self._carrier, step, batch, layer, len(ranks), over)
            else:
                script = self._script(step, len(ranks))
                exchange = _Exchange(
                    self._carrier, self._agenda, self._span, script, step, batch, layer, ranks, over
                )
            self._under_way[step.id] = exchange
        exchange.join(ranks.index(rank), resume)

    def _script(self, step: Collective, members: int) -> _Script:
        known = self._scripts.get((step.group, step.label))
        if known is None or not known.tells(step):
            known = self._scripts[step.group, step.label] = _Script(step, members)
        return known


class _Together:
    """A collective as one stream: it begins with its last member and ends for all at once."""

    __slots__ = ("_batch", "_carrier", "_layer", "_members", "_over", "_resume", "_step")

    def __init__(
        self, carrier: Carrier, step: Collective, batch: str, layer: int, members: int, over: Proceed
    ) -> None:
        self._carrier = carrier
        self._step = step
        self._batch = batch
        self._layer = layer
        self._members = members
        self._over = over
        self._resume: dict[int, Proceed] = {}

    def join(self, index: int, resume: Proceed) -> None:
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
        "_held",
        "_last",
        "_layer",
        "_over",
        "_ranks",
        "_resume",
        "_round",
        "_rounds",
        "_send",
        "_since_ns",
        "_span",
        "_step",
        "_totals",
        "_unfinished",
        "_waits",
    )

    def __init__(
        self,
        carrier: Carrier,
        agenda: Agenda,
        span: RecordSpan,
        script: _Script,
        step: Collective,
        batch: str,
        layer: int,
        ranks: Sequence[int],
        over: Proceed,
    ) -> None:
        members = len(ranks)
        self._carrier = carrier
        self._agenda = agenda
        self._span = span
        self._rounds = script.rounds
        self._totals = script.totals
        self._step = step
        self._batch = batch
        self._layer = layer
        self._ranks = ranks
        self._over = over
        self._last = len(script.rounds) - 1
        self._round = [-1] * members
        self._waits = [0] * members
        self._complete = [False] * members
        self._held: dict[tuple[int, int], list[tuple[int, int]]] = {}
        self._send: dict[int, SendMessages] = {}
        self._arrive = [partial(self._arrived, index) for index in range(members)]
        self._resume: dict[int, Proceed] = {}
        self._since_ns = [0] * members
        self._unfinished = members

    def join(self, index: int, resume: Proceed) -> None:
        self._resume[index] = resume
        self._since_ns[index] = self._agenda.now_ns
        self._send[index] = self._carrier.open_share(
            self._step, index, self._batch, self._layer, self._totals[index], partial(self._completed, index)
        )
        self._enter(index, 0)

    def _enter(self, index: int, number: int) -> None:
        """Begin round `number`, and the next ones as long as there is nothing to wait for."""
        while number <= self._last:
            first, further, expected = self._rounds[number][index]
            waits = len(first) + len(further) + expected
            if self._step.round_seconds:
                waits += 1
                self._compute(index, number)
            if number == self._last and not self._complete[index]:
                waits += 1
            self._round[index] = number
            self._waits[index] = waits
            ready = self._ready(index, number, first)
            if further:  # apart: NCCL has a connection for each tree
                for message in self._ready(index, number, further):
                    self._send[index]((message,), self._arrive[index])
            if ready:
                self._send[index](ready, self._arrive[index])
            if self._held:
                for peer, size in self._held.pop((index, number), ()):
                    self._send[peer](((index, size),), self._arrive[peer])
            if waits:
                return
            number += 1
        self._through(index)

    def _ready(self, index: int, number: int, messages: Messages) -> Messages:
        """Those whose receivers are in the round; the others are held back until they are."""
        rounds = self._round
        for peer, _ in messages:
            if rounds[peer] != number:
                break
        else:
            return messages
        ready = []
        for message in messages:
            peer, size = message
            if rounds[peer] == number:
                ready.append(message)
            else:
                self._held.setdefault((peer, number), []).append((index, size))
        return ready

    def _compute(self, index: int, number: int) -> None:
        now_ns = self._agenda.now_ns
        self._record_wait(index)
        seconds = self._step.round_seconds[index][number]
        self._agenda.at(now_ns + round(seconds * NS_PER_S), partial(self._computed, index, now_ns))

    def _computed(self, index: int, began_ns: int) -> None:
        self._record(index, SpanKind.COMPUTE, began_ns)
        self._since_ns[index] = self._agenda.now_ns
        self._happened(index)

    def _arrived(self, index: int, peer: int) -> None:
        """A message of member `index` is at `peer`; both are in its round."""
        waits = self._waits
        waits[peer] -= 1
        if waits[peer] == 0:
            self._enter(peer, self._round[peer] + 1)
        waits[index] -= 1
        if waits[index] == 0:
            self._enter(index, self._round[index] + 1)

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
        resume = self._resume[index]
        self._unfinished -= 1
        if self._unfinished == 0:
            self._over()
            # They lead back here: without them nothing of this is left for the garbage collector to find.
            self._arrive.clear()
            self._send.clear()
            self._resume.clear()
        resume()

    def _record_wait(self, index: int) -> None:
        """Ring attention has waited for bytes since the last block was computed over."""
        if self._since_ns[index] < self._agenda.now_ns:
            self._record(index, SpanKind.COLLECTIVE, self._since_ns[index])

    def _record(self, index: int, kind: SpanKind, start_ns: int) -> None:
        self._span(self._ranks[index], kind, self._step.label, self._batch, self._layer, start_ns)
