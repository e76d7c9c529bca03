"""Levels as marks that the ends of connections put on their packets. Pure: returns the changes, sends none.

On real servers nobody can tell the switches what to do with a single connection. They sort packets into
queues by DSCP, and the rank that sends on a connection sets that in its socket (`IP_TOS`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from controller.flow import Level
from controller.protocol import TcpConnection


class MarkChange(msgspec.Struct, frozen=True, kw_only=True):
    """`rank` marks the packets that it sends on `connection` with the DSCP of `level` from now on."""

    rank: int
    connection: TcpConnection
    level: Level


@dataclass(slots=True)
class _Marked:
    rank: int
    connection: TcpConnection
    path: tuple[str, ...]
    level: Level


class MarkBook:
    """The mark of each connection: a `controller.dispatcher.Steering`.

    `paths["h1 h9"]` is the path between two servers, as the topology's nodes. There has to be one, because
    real switches choose among several by themselves. Without `enforced`, levels are kept and nothing is
    marked.
    """

    def __init__(self, paths: Mapping[str, tuple[str, ...]], *, enforced: bool) -> None:
        self._paths = paths
        self._enforced = enforced
        self._connections: dict[str, _Marked] = {}

    def add(
        self,
        name: str,
        connection: TcpConnection,
        src: str,
        dst: str,
        *,
        rank: int,
        path_key: str | None = None,
    ) -> list[MarkChange]:
        """Note a new connection. Its rank has marked it with CONTROL. `path_key` chooses nothing here.

        Raises `ValueError` if the name is taken.
        """
        if name in self._connections:
            raise ValueError(f"connection {name!r} is registered twice")
        path = self._paths[f"{src} {dst}"]
        self._connections[name] = _Marked(rank, connection, path, Level.CONTROL)
        return []

    def set_level(self, names: Iterable[str], level: Level) -> list[MarkChange]:
        changes = []
        for name in names:
            one = self._connections[name]
            if one.level != level:
                one.level = level
                changes.append(MarkChange(rank=one.rank, connection=one.connection, level=level))
        return changes if self._enforced else []

    def path(self, name: str) -> tuple[str, ...]:
        return self._connections[name].path
