"""The serving system: requests in, batch plans out.

It routes requests to prefill units, keeps track of cached prefixes, forms batches and assigns decode
workers. It is pure: no I/O, no clock, and no randomness but the job's seed. The same events give the same
plans everywhere.
"""
