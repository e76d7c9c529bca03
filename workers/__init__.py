"""One process per rank: lanes, transfers, collectives, compute and the layer loop.

`plan` and `protocol` are plain data and import no torch, so that every fabric can read them.
"""
