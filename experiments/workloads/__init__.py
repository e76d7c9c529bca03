"""Sources of work: traces, seeded generators, coflows, and flows that are given one by one.

Requests come as a `Workload`: in order of arrival, with notes on how they were made.
"""
