"""Which of several equal-cost paths a connection takes, by a hash of stable names."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

IP_TCP = 6


def pick(paths: Sequence[T], *, seed: int, src_ip: str, dst_ip: str, key: str) -> T:
    """One of `paths`, by a hash of the 5-tuple and the seed; the same in every run of a seed.

    `key` stands for the two TCP ports. The kernel draws them anew in every run, but policies that are
    compared on one seed must get the same paths. So a stable name is hashed instead
    (docs/decisions/0003-ecmp-key.md).
    """
    digest = hashlib.blake2b(f"{seed}|{src_ip}|{dst_ip}|{IP_TCP}|{key}".encode(), digest_size=8).digest()
    return paths[int.from_bytes(digest, "big") % len(paths)]


def connection_key(lane: str, number: int = 0) -> str:
    """The name of connection `number` of a lane, `S3.2-9.0#0`. It is hashed for the connection's path."""
    return f"{lane}#{number}"


def member_key(group: str, rank: int, server: str) -> str:
    """The key of all that `rank` sends to `server` in a process group: `p0.ep0:3-h2`."""
    return f"{group}:{rank}-{server}"
