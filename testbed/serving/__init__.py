"""The serving system: requests in, batch plans out.

Routes requests to prefill units, keeps track of cached prefixes, forms batches, assigns decode
workers. Pure: no I/O, no clock, no randomness; the same events give the same plans everywhere.
"""
