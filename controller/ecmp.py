"""Which of several equal-cost paths a connection takes, and the stable names that are hashed for it."""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

IP_TCP = 6


def pick(paths: Sequence[T], *, seed: int, src_ip: str, dst_ip: str, key: str) -> T:
    """One of `paths` by a hash of the 5-tuple and the seed, the same for every run of a seed.

    `key` stands for the two TCP ports. The kernel draws those at random for every run, and two
    policies compared on one seed must see the same paths, so a lane's stable name is hashed
    instead (docs/decisions/0003-ecmp-key.md).
    """
    digest = hashlib.blake2b(f"{seed}|{src_ip}|{dst_ip}|{IP_TCP}|{key}".encode(), digest_size=8).digest()
    return paths[int.from_bytes(digest, "big") % len(paths)]


def connection_key(lane: str, number: int = 0) -> str:
    """What is hashed for connection `number` of a lane, `S3.2-9.0#0`. It is also the connection's name."""
    return f"{lane}#{number}"


def member_key(group: str, rank: int, server: str) -> str:
    """What is hashed for all that `rank` sends to `server` in a process group: `p0.ep0:3-h2`."""
    return f"{group}:{rank}-{server}"
