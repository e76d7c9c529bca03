"""Scenarios, runs, results, reports and the `mfs` command. The rooms, which import from lower ones only:
trace_formats, scenario, workloads, resolve, results, report, run, calibrate and validate, one on the other;
sweep, traces, bench and explain beside these; cli above all."""
