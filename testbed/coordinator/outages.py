"""What the coordinator knows of a link that went down."""

import msgspec


class Down(msgspec.Struct, frozen=True, kw_only=True):
    """`link` was down for `wall_ns` from CLOCK_MONOTONIC `begin_wall_ns` on."""

    link: str
    begin_wall_ns: int
    wall_ns: int
