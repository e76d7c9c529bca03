"""Where the work of a run comes from: a trace, a seeded generator, coflows, or flows written down one by one.
Requests come as a `Workload`: in order of arrival, with notes on what was done to them."""
