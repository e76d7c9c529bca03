"""The emulated fabric: the cluster's network on one machine, with real bytes and a queue per level.

`fabric_mininet` is the entry point. It runs a job in a `sandbox`, whose first process is `inside`.
"""
