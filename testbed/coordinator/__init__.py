"""The coordinator of a run on real processes: what the fabrics that have ranks and a controller share.

It plays the job, exchanges messages with ranks and controller, and combines what they recorded.
"""
