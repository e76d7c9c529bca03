"""Batches: whose turn it is, how many requests fit, split prompts, preemption."""
