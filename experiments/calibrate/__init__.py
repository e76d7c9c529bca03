"""Measurements of a machine: its overheads on top of ideal links, and how close a GPU gets to its peaks."""
