"""Which of several equal-cost paths a connection takes."""

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
