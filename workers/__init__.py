"""One process per rank: lanes, transfers, collectives, compute and the layer loop.

`plan`, `rounds` and `protocol` are plain data and import no torch, so that every fabric can use them.
"""
