"""A forked process becomes a rank."""

import os
import sys
import traceback
from typing import NoReturn

import torch

from workers.process import call_this_process, enter_network_of, words_of_exit
from workers.protocol import RankConfig
from workers.rank import run


def become_rank(config: RankConfig) -> NoReturn:
    """Run the rank until it ends. For a process that has just been forked, and has one thread."""
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


def how_it_ended(status: int) -> str:
    """What `os.wait` says of a process, in words."""
    return words_of_exit(os.waitstatus_to_exitcode(status))
