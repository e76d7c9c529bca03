"""Sweeps: a scenario at every combination of values."""
