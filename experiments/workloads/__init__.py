"""Where requests come from: real traces, a seeded generator, or flows written down one by one.

All of them give a `Workload`: requests in order of arrival, and notes on what was done to them.
"""
