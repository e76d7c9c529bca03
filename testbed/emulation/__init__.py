"""The emulated fabric: one machine, real bytes, a switch per switch and a queue per level.

`fabric_mininet` is the door; `sandbox` is the house a run lives in; `inside` is what happens there.
"""
