"""Batch plans: compute, collectives and transfers per layer, and their times on an idle network."""
