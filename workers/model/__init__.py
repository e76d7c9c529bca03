"""Real layers: a small decoder whose activations and KV are what collectives and transfers carry.

Its weights follow from a seed. Each rank computes its shard, and the result is compared with the whole model.
"""
