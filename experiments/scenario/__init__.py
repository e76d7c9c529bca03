"""Scenarios: the keys and what they may be, reading them from YAML, writing them back."""
