"""What agents say of their servers during a run, added up. Pure."""

from collections.abc import Mapping
from typing import Final

from testbed.cluster.agents import segments
from testbed.cluster.fidelity import Servers
from workers.agent_protocol import Here

MOVES: Final = 65_536
"""Bytes between two beats of an agent that the control plane alone never makes a server receive."""


class LoadMeter:
    """From its making on. `nics` is the interface of each host on the data network.

    `moved` grows while data arrives anywhere: by one for each beat since which a server has received more
    than `MOVES` bytes there. The control plane may use the same network, so a byte alone says nothing.
    """

    def __init__(self, here: Mapping[str, Here], nics: Mapping[str, str]) -> None:
        self._nics = nics
        self._before = segments(here)
        self._after = self._before
        self._idle: dict[str, list[float]] = {one.host: [] for one in here.values()}
        self._said = dict(here)
        self.moved = 0

    def take(self, here: Mapping[str, Here]) -> None:
        """Take in what agents have said last. Each beat counts once."""
        for name, one in here.items():
            before = self._said.get(name)
            if before is one:
                continue
            self._said[name] = one
            self._idle.setdefault(one.host, []).append(one.load.idle)
            if before is not None and self._received(one) - self._received(before) > MOVES:
                self.moved += 1
        self._after = segments(here)

    def servers(self, mtu: int) -> Servers:
        """What there was in all. `mtu` is the smallest one on the data network."""
        zero = (0, 0)
        return Servers(
            idle={host: sum(idle) / len(idle) for host, idle in self._idle.items() if idle},
            segments={
                host: (sent - self._before.get(host, zero)[0], again - self._before.get(host, zero)[1])
                for host, (sent, again) in self._after.items()
            },
            mtu=mtu,
        )

    def _received(self, one: Here) -> int:
        return one.load.received.get(self._nics[one.host], 0)
