"""Scenarios, runs, results, reports and the `mfs` command.

A room imports only from rooms before it in this list: trace_formats, scenario, workloads, resolve,
results, report, run, calibrate, validate. sweep, traces, bench and explain may import from all of these,
and cli from every room.
"""
