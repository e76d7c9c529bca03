"""The compiled core of the simulator."""

LEVELS: int
