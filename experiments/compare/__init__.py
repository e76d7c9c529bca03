"""Comparing runs and sweeps that lie in directories."""
