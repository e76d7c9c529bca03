"""Imports torch once, then forks all ranks, each into the network namespace of its server.

Run as `python -m workers.zygote`. It prints `ready` when torch is imported. Then it reads the ranks from
standard input: the length in 8 bytes (big-endian), then a msgpack list of `RankConfig`. It forks the ranks
and waits for them. If a rank ends with an error, it prints a line and continues to wait; the coordinator
decides what follows.
"""

import ctypes
import gc
import os
import sys
import traceback

import msgspec
import torch
import torch.distributed
import zmq  # noqa: F401

from workers.protocol import RankConfig
from workers.rank import run

_CLONE_NEWNET = 0x40000000
_PR_SET_NAME = 15


def enter_network_of(pid: int) -> None:
    """Move this process into the network namespace of process `pid`. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns to the network of process {pid}")
    finally:
        os.close(fd)


def call_this_process(name: str) -> None:
    """Give this process the name that `ps` and `/proc` show, at most 15 letters."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)


def _child(config: RankConfig) -> None:
    try:
        call_this_process(f"rank {config.rank}")
        if config.namespace_pid is not None:
            enter_network_of(config.namespace_pid)
        torch.set_num_threads(1)
        # A permit must not wait 5 ms (Python's default) because another thread of the rank is busy.
        sys.setswitchinterval(0.0005)
        run(config)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(1)


def main() -> None:
    print("ready", flush=True)
    length = int.from_bytes(sys.stdin.buffer.read(8), "big")
    configs = msgspec.msgpack.decode(sys.stdin.buffer.read(length), type=list[RankConfig])
    gc.freeze()  # the collector must not touch, and so copy, the shared pages
    ranks = {}
    for config in configs:
        pid = os.fork()
        if pid == 0:
            _child(config)
        ranks[pid] = config.rank
    while ranks:
        pid, status = os.wait()
        rank = ranks.pop(pid, None)
        if rank is not None and status != 0:
            print(f"rank {rank} ended with {_how(status)}", flush=True)


def _how(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else f"signal {-code}"


if __name__ == "__main__":
    main()
