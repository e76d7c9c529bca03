"""Scenarios, runs, results, reports and the `mfs` command.

A room imports only from rooms before it in this list: trace_formats, scenario, workloads, resolve,
results, report, run, calibrate, validate. sweep, traces, bench and explain may import from all of these,
and cli from every room.
"""

import logging

# Without a home that it can write to, matplotlib warns at its import, which several rooms do. It uses a
# temporary directory then, and nothing is wrong.
logging.getLogger("matplotlib").setLevel(logging.ERROR)
