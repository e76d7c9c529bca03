"""Scenarios: their keys and limits, reading them from YAML, and writing them back."""
