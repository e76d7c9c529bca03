"""The clocks of other servers: how far each is ahead of the coordinator's, before a run and after it. Pure.

A round trip says by how much: the other end reads its clock somewhere between the sending and the answer. The
middle is off by at most half of the round trip, so the shortest of many is kept (as NTP does, RFC 5905,
section 10).
"""

from collections.abc import Sequence

import msgspec

from controller.pulse import Pause
from workers.protocol import Records


class RoundTrip(msgspec.Struct, frozen=True, kw_only=True):
    """A question sent and its answer received by our clock, and what the other clock said in between."""

    sent_ns: int
    theirs_ns: int
    received_ns: int


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """At `wall_ns` of our clock, the other one is `ahead_ns` ahead, and this is off by `error_ns` at most."""

    wall_ns: int
    ahead_ns: int
    error_ns: int


def read(trips: Sequence[RoundTrip]) -> Reading:
    """Return what the shortest of `trips` says."""
    best = min(trips, key=lambda trip: trip.received_ns - trip.sent_ns)
    middle_ns = (best.sent_ns + best.received_ns) // 2
    return Reading(
        wall_ns=middle_ns,
        ahead_ns=best.theirs_ns - middle_ns,
        error_ns=(best.received_ns - best.sent_ns + 1) // 2,
    )


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """A clock read before a run and after it. In between, it is taken to drift evenly."""

    before: Reading
    after: Reading

    @property
    def total_ns(self) -> int:
        """By how much the clock got ahead of ours from the first reading to the last."""
        return self.after.ahead_ns - self.before.ahead_ns

    def by_ns(self, wall_ns: int) -> int:
        """By how much it had got ahead at `wall_ns` of our clock, since the first reading."""
        length_ns = self.after.wall_ns - self.before.wall_ns
        return round(self.total_ns * (wall_ns - self.before.wall_ns) / length_ns) if length_ns > 0 else 0


def corrected(records: Records, drift: Drift, *, zero_wall_ns: int, time_dilation: float) -> Records:
    """Return the records of a rank as if its clock had not drifted.

    The rank has subtracted how far its clock was ahead before the run, so only the drift is left.
    """

    def at(model_ns: int) -> int:
        return model_ns - round(drift.by_ns(zero_wall_ns + round(model_ns * time_dilation)) / time_dilation)

    replace = msgspec.structs.replace
    pause = records.longest_pause
    return replace(
        records,
        sent=tuple(
            replace(one, submit_ns=at(one.submit_ns), permit_ns=at(one.permit_ns)) for one in records.sent
        ),
        received=tuple(replace(one, finish_ns=at(one.finish_ns)) for one in records.received),
        spans=tuple(replace(s, start_ns=at(s.start_ns), end_ns=at(s.end_ns)) for s in records.spans),
        progress=tuple(replace(mark, time_ns=at(mark.time_ns)) for mark in records.progress),
        longest_pause=Pause(
            begin_wall_ns=pause.begin_wall_ns - drift.by_ns(pause.begin_wall_ns), wall_ns=pause.wall_ns
        ),
    )
