"""Sweeps: a scenario at every combination of values. Plans cells, runs them, collects their results."""
