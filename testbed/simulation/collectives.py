"""Collectives of simulated ranks: round by round, or as one stream if that takes equally long.

Times are model nanoseconds, sizes model bytes.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

from testbed.simulation.agenda import Agenda
from workers.plan import Collective, CollectiveKind
from workers.rounds import Rounds
from workers.spans import SpanKind

EVEN = 0.01
"""Two sizes count as equal if they differ by at most this share of the larger one."""


Proceed = Callable[[], None]
RecordSpan = Callable[[int, SpanKind, str, str, int | None, int], None]
"""Records a span that ends now: rank, kind, label, batch, layer, start."""

TakesNs = Callable[[float], int]
"""How long compute of so many seconds takes, with what the machine adds to it."""


Messages = Sequence[tuple[int, int]]
"""Peers, and bytes for each."""

SendMessages = Callable[[Messages, Callable[[int], None] | None], None]
"""Sends messages of a flow now. The callback, if any, gets each peer once its bytes, if any, have arrived."""


class Carrier(Protocol):
    """What collectives need from a transport. Nothing is called back before the call has returned."""

    def open_share(
        self,
        step: Collective,
        index: int,
        batch: str,
        layer: int,
        total: Mapping[int, int],
        done: Callable[[], None],
    ) -> SendMessages:
        """Submit what member `index` sends to its peers in all rounds.

        `done` is called once all of it has arrived.
        To the scheduler, this share is one flow. It is sent round by round with the function that is
        returned. Pass the same object for equal totals, so that the share is worked out only once.
        """
        ...

    def open_group(self, step: Collective, batch: str, layer: int, done: Callable[[], None]) -> None:
        """Send what all members send as one flow, with its connections in lockstep; `done` at its end."""
        ...


def even(step: Collective, members: int) -> bool:
    """Whether `step` can go as one stream: alone, its last byte arrives when it would message by message.

    These can:

    - a ring all-reduce, in which all members send equally much in all rounds;
    - an all-gather of equal shards;
    - an all-to-all in which every member sends equally much to all others (a dispatch to experts), or gets
      equally much from all others (a combine).

    A tree all-reduce cannot, because its members have different parts, nor can ring attention, which waits
    for compute. A collective with nothing to send need not.
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
    """Whether the sizes in each row are alike. The diagonal does not count, because it is not sent."""
    return all(_alike(row[:i] + row[i + 1 :]) for i, row in enumerate(rows))


def _alike(sizes: Sequence[int]) -> bool:
    most = max(sizes)
    return most - min(sizes) <= EVEN * most


class _Script:
    """What each member sends in each round of a collective, worked out once for all layers that are alike.

    `rounds[number][index]` has a member's first message to each peer, its further messages to the same
    peers (both trees of a double tree can have one), and the number of messages that it receives.
    `totals[index]` has the bytes for each peer in all rounds.
    """

    __slots__ = ("_kind", "_sizes", "rounds", "totals")

    def __init__(self, step: Collective, members: int) -> None:
        self._kind = step.kind
        self._sizes = step.sizes
        rounds, parts = step.rounds(members), step.parts(members)
        # Ring attention has one more block to compute over when nothing is left to send.
        count = len(step.round_seconds[0]) if step.round_seconds else rounds.count
        self.rounds = tuple(
            tuple(_of_member(rounds, parts, index, number) for index in range(members))
            for number in range(max(1, count))
        )
        self.totals = tuple(step.sent_by(index, members) for index in range(members))

    def tells(self, step: Collective) -> bool:
        """Whether this is the script of `step`, which is of the same group."""
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

    `groups` are the ranks of each process group. With `grouped`, collectives that are `even` go as one
    stream. `span` records the rounds of ring attention, and `takes_ns` says how long their compute takes.
    """

    def __init__(
        self,
        carrier: Carrier,
        agenda: Agenda,
        groups: Mapping[str, tuple[int, ...]],
        *,
        grouped: bool,
        span: RecordSpan,
        takes_ns: TakesNs,
    ) -> None:
        self._carrier = carrier
        self._agenda = agenda
        self._groups = groups
        self._grouped = grouped
        self._span = span
        self._takes_ns = takes_ns
        self._under_way: dict[str, _Exchange | _Together] = {}
        self._scripts: dict[tuple[str, str], _Script] = {}

    def join(self, step: Collective, batch: str, layer: int, rank: int, resume: Proceed) -> None:
        """`rank` has reached `step`. `resume` is called when it may go on."""
        exchange = self._under_way.get(step.id)
        ranks = self._groups[step.group]
        if exchange is None:
            over = partial(self._under_way.__delitem__, step.id)
            if self._grouped and even(step, len(ranks)):
                exchange = _Together(self._carrier, step, batch, layer, len(ranks), over)
            else:
                script = self._script(step, len(ranks))
                exchange = _Exchange(
                    self._carrier,
                    self._agenda,
                    self._span,
                    self._takes_ns,
                    script,
                    step,
                    batch,
                    layer,
                    ranks,
                    over,
                )
            self._under_way[step.id] = exchange
        exchange.join(ranks.index(rank), resume)

    def _script(self, step: Collective, members: int) -> _Script:
        known = self._scripts.get((step.group, step.label))
        if known is None or not known.tells(step):
            known = self._scripts[step.group, step.label] = _Script(step, members)
        return known


class _Together:
    """A collective as one stream: it begins when its last member joins, and ends for all at once."""

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

    A message is sent when both its ends are in its round, because the receiver has no buffer before. The
    same holds for gloo, and for NCCL beyond what its own buffers hold. A member is in a round until all
    that it sends and receives in it has arrived. In ring attention, it also has to compute over its
    block. In the last round, its flow also has to be complete.
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
        "_takes_ns",
        "_totals",
        "_unfinished",
        "_waits",
    )

    def __init__(
        self,
        carrier: Carrier,
        agenda: Agenda,
        span: RecordSpan,
        takes_ns: TakesNs,
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
        self._takes_ns = takes_ns
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
        """Begin round `number`, and further ones as long as there is nothing to wait for."""
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
            if further:  # one by one: NCCL has a connection for each tree
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
        """The messages whose receivers are in the round. Others are held back until their receivers are."""
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
        self._agenda.at(now_ns + self._takes_ns(seconds), partial(self._computed, index, now_ns))

    def _computed(self, index: int, began_ns: int) -> None:
        self._record(index, SpanKind.COMPUTE, began_ns)
        self._since_ns[index] = self._agenda.now_ns
        self._happened(index)

    def _arrived(self, index: int, peer: int) -> None:
        """A message of member `index` has arrived at `peer`. Both are in its round."""
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
        """One of the things that a member waits for in its round has happened."""
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
            # These refer back to this object. Without them it needs no garbage collector to be freed.
            self._arrive.clear()
            self._send.clear()
            self._resume.clear()
        resume()

    def _record_wait(self, index: int) -> None:
        """Record that ring attention has waited for bytes since it computed over the last block."""
        if self._since_ns[index] < self._agenda.now_ns:
            self._record(index, SpanKind.COLLECTIVE, self._since_ns[index])

    def _record(self, index: int, kind: SpanKind, start_ns: int) -> None:
        self._span(self._ranks[index], kind, self._step.label, self._batch, self._layer, start_ns)
