"""Which of several peers that say so is the agent of a place, such as `node07/2`. Pure."""

import enum


class Claim(enum.Enum):
    """What becomes of a peer that says it is the agent of a place."""

    HOLDS = enum.auto()
    REPLACES = enum.auto()
    WAITS = enum.auto()
    REFUSED = enum.auto()


class Places:
    """Places and the peers that hold them.

    A second peer is not let in while the first one lives, that is, while it says something every `patience_s`
    seconds. The second waits until that is known: an agent that was killed may be started again at once.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._peer_at: dict[str, str] = {}
        self._place_of: dict[str, str] = {}
        self._waiting: dict[str, tuple[str, float]] = {}  # for a place: who, and since when

    def claim(self, place: str, peer: str, now_s: float, silent_s: float) -> Claim:
        """Take in that `peer` says it is at `place`, whose holder has said nothing for `silent_s`."""
        holder = self._peer_at.get(place)
        if holder == peer:
            return Claim.HOLDS
        if holder is None or silent_s > self._patience_s:
            self._place_of.pop(holder or "", None)
            self._peer_at[place] = peer
            self._place_of[peer] = place
            self._waiting.pop(place, None)
            return Claim.HOLDS if holder is None else Claim.REPLACES
        first, since_s = self._waiting.setdefault(place, (peer, now_s))
        waited_s = now_s - since_s
        if first == peer:
            # All the time, the holder has been silent for less than its patience: it lives.
            return Claim.WAITS if waited_s <= self._patience_s else Claim.REFUSED
        if waited_s > 2 * self._patience_s:  # the one that waited first was refused, or has gone
            self._waiting[place] = peer, now_s
            return Claim.WAITS
        return Claim.REFUSED

    def leave(self, peer: str) -> None:
        """Take in that a peer has left its place, if it had one."""
        place = self._place_of.pop(peer, None)
        if place is not None:
            del self._peer_at[place]

    def peer_at(self, place: str) -> str | None:
        return self._peer_at.get(place)

    def place_of(self, peer: str) -> str | None:
        return self._place_of.get(peer)
