"""Imports torch once and forks every rank from it, each into its server's network namespace.

Run as `python -m workers.zygote`. Reads one msgpack list of `RankConfig` from standard input,
says `ready` on standard output when torch is there, forks, and waits. If a rank ends with an
error, it says so on standard output and goes on waiting; the coordinator decides.
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


def enter_network_of(pid: int) -> None:
    """Move this process into the network namespace of process `pid`. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    try:
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns to the network of process {pid}")
    finally:
        os.close(fd)


def _child(config: RankConfig) -> None:
    try:
        enter_network_of(config.namespace_pid)
        torch.set_num_threads(1)
        # A permit must not wait five milliseconds because another thread of the rank is busy.
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
    gc.freeze()  # keep the collector from touching (and so copying) the shared pages
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
