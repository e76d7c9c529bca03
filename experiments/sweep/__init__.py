"""A scenario at every combination of values: planning cells, running them, and what they bring back."""
