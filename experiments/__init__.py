"""Scenarios, workloads, results, reports and the `mfs` command."""
