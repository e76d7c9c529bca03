"""Imports torch once, then forks all ranks, each into the network namespace of its server.

Run as `python -m workers.zygote`. It prints `ready` when torch is imported. Then it reads the ranks from
standard input: the length in 8 bytes (big-endian), then a msgpack list of `RankConfig`. It forks the ranks
and waits for them. If a rank ends with an error, it prints a line and continues to wait; the coordinator
decides what follows.
"""

import gc
import os
import sys

import msgspec
import zmq  # noqa: F401

from workers.forked import become_rank, how_it_ended
from workers.protocol import RankConfig


def main() -> None:
    print("ready", flush=True)
    length = int.from_bytes(sys.stdin.buffer.read(8), "big")
    configs = msgspec.msgpack.decode(sys.stdin.buffer.read(length), type=list[RankConfig])
    gc.freeze()  # the collector must not touch, and so copy, the shared pages
    ranks = {}
    for config in configs:
        pid = os.fork()
        if pid == 0:
            become_rank(config)
        ranks[pid] = config.rank
    while ranks:
        pid, status = os.wait()
        rank = ranks.pop(pid, None)
        if rank is not None and status != 0:
            print(f"rank {rank} ended with {how_it_ended(status)}", flush=True)


if __name__ == "__main__":
    main()
