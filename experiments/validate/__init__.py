"""Validation: the same requests emulated and simulated, and how far the simulation is off."""
